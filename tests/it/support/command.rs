//! The command line as a user has it: the built binary, its standard streams, its exit code.

use crate::support::Node;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ran {
    /// Its output, which is text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    /// Exit code 0 and nothing to complain about; its output.
    #[track_caller]
    pub(crate) fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        self.text()
    }

    /// That exit code, and an error that has `part` in it.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, part: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(part), "{part:?} is not in {self:?}");
    }
}

/// Commands that ask these nodes.
pub(crate) struct Shell {
    endpoints: String,
}

impl Shell {
    pub(crate) fn of<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Self {
        let ports = nodes.into_iter().map(|node| format!("localhost:{}", node.http_port));
        Self::at(&ports.collect::<Vec<_>>().join(","))
    }

    pub(crate) fn at(endpoints: &str) -> Self {
        Self { endpoints: endpoints.to_owned() }
    }

    fn command(&self, args: &[&str]) -> Command {
        self.program(env!("CARGO_BIN_EXE_infinitystore"), args)
    }

    fn program(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("INFINITYSTORE_") {
                command.env_remove(name);
            }
        }
        command.args(args).env("INFINITYSTORE_ENDPOINTS", &self.endpoints);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, b"")
    }

    /// As [`Self::run`], with that on standard input.
    pub(crate) fn run_with(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child = self.command(args).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        // One that does not read its input to the end may have ended.
        let writer = thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        Ran { code: output.status.code().unwrap_or(-1), out: output.stdout, err }
    }

    /// Runs lines of a shell in a folder; what they say, errors and all.
    pub(crate) fn script(&self, lines: &str, dir: &Path) -> Ran {
        let binary = Path::new(env!("CARGO_BIN_EXE_infinitystore"));
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", argument(binary.parent().unwrap()));
        let mut command = self.program("sh", &["-c", &format!("exec 2>&1; {lines}")]);
        let output = command.current_dir(dir).env("PATH", path).stdin(Stdio::null()).output().unwrap();
        Ran { code: output.status.code().unwrap_or(-1), out: output.stdout, err: String::new() }
    }

    /// Starts a command that runs on.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        Self::spawn(self.command(args))
    }

    /// As [`Self::start`], with any program, in a session of its own: without the terminal that the
    /// tests may have.
    pub(crate) fn start_apart(&self, words: &[&str]) -> Running {
        Self::spawn(self.program("setsid", words))
    }

    fn spawn(mut command: Command) -> Running {
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Running { child, said }
    }
}

/// A command that runs. It is killed at the latest with its test.
pub(crate) struct Running {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Running {
    /// Its next line, without its newline.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.said.read_line(&mut line).unwrap() > 0, "it has ended: {}", self.complaint());
        line.trim_end().to_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), signal).unwrap();
    }

    /// Waits until it has ended; the rest of what it said.
    pub(crate) fn end(mut self) -> Ran {
        let mut out = Vec::new();
        self.said.read_to_end(&mut out).unwrap();
        let err = self.complaint();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        Ran { code, out, err }
    }

    fn complaint(&mut self) -> String {
        let mut err = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut err).unwrap();
        }
        err
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A path as an argument.
pub(crate) fn argument(path: &Path) -> &str {
    path.to_str().unwrap()
}
