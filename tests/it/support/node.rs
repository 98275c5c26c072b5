//! One node: a process of the built binary, its ports and its files.

use crate::support::command::{Shell, argument};
use crate::support::http::{Response, call};
use crate::support::{eventually, free_port};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;

/// A node that may run, be killed, and run again on the same ports and files.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) raft_port: u16,
    pub(crate) http_port: u16,
    /// Working directory: the node's data is in `data/<name>` below it.
    dir: PathBuf,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    /// Files that it may have open, where a test says so.
    open_files: Option<u64>,
    /// What its clients need, where it serves them over TLS.
    client_flags: Vec<String>,
    child: Mutex<Option<Child>>,
}

/// The binary with some flags, in a directory, with output to `log`.
fn command(dir: &Path, log: &Path, flags: &[String], open_files: Option<u64>) -> Command {
    let log = File::options().create(true).append(true).open(log).unwrap();
    let binary = env!("CARGO_BIN_EXE_infinitystore");
    let mut command = match open_files {
        None => Command::new(binary),
        Some(count) => {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("ulimit -n {count}; exec \"$0\" \"$@\""), binary]);
            command
        }
    };
    command.args(flags).current_dir(dir).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    // What the environment says would change the flags that the test gives.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("INFINITYSTORE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the binary with flags with which it must not start; its exit code and what it said.
pub(crate) fn failed_start(dir: &Path, flags: &[&str]) -> (i32, String) {
    failed_start_with(dir, flags, &[])
}

/// As [`failed_start`], with variables in the environment.
pub(crate) fn failed_start_with(dir: &Path, flags: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let log = dir.join("failed-start.log");
    let _ = fs::remove_file(&log);
    let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
    let mut child = command(dir, &log, &flags, None).envs(variables.iter().copied()).spawn().unwrap();
    let text = || fs::read_to_string(&log).unwrap();
    let status = eventually(&format!("{flags:?} to end"), || {
        // What a node says once it serves.
        if text().contains("serves on") {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it started with {flags:?}:\n{}", text());
        }
        child.try_wait().unwrap()
    });
    (status.code().unwrap_or(-1), text())
}

impl Node {
    /// On free ports; not started. `flags` come behind the original's three.
    pub(crate) fn new(dir: &Path, name: &str, flags: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            raft_port: free_port(),
            http_port: free_port(),
            dir: dir.to_owned(),
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            variables: Vec::new(),
            open_files: None,
            client_flags: Vec::new(),
            child: Mutex::new(None),
        }
    }

    /// With one flag more, which may depend on its ports.
    pub(crate) fn with_flag(mut self, flag: impl FnOnce(&Self) -> String) -> Self {
        let flag = flag(&self);
        self.flags.push(flag);
        self
    }

    /// Its next start has these flags, and those of the original.
    pub(crate) fn give_flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    }

    /// With a variable in its environment.
    pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With so many files and sockets that it may have open, and no way to raise that.
    pub(crate) fn with_open_files(mut self, count: u64) -> Self {
        self.open_files = Some(count);
        self
    }

    /// It serves clients over TLS, with a certificate of that authority.
    pub(crate) fn with_cacert(mut self, cacert: &Path) -> Self {
        self.client_flags.push(format!("--cacert={}", argument(cacert)));
        self
    }

    /// It asks clients for certificates. That one, without its ending, is a good one.
    pub(crate) fn with_client(mut self, certificate: &Path) -> Self {
        for (flag, ending) in [("cert", "pem"), ("cert-key", "key")] {
            self.client_flags.push(format!("--{flag}={}.{ending}", argument(certificate)));
        }
        self
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        let child = self.child.lock().unwrap();
        Pid::from_raw(child.as_ref().expect("it runs").id().cast_signed()).unwrap()
    }

    /// The original's flags, with this node's values, and those it was made with.
    pub(crate) fn flags(&self) -> Vec<String> {
        let mut flags = vec![
            format!("--http-addr=:{}", self.http_port),
            format!("--raft-addr=localhost:{}", self.raft_port),
            format!("--node-id={}", self.name),
        ];
        flags.extend(self.flags.iter().cloned());
        flags
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.join("data").join(&self.name)
    }

    /// What it has printed so far, over all its lives.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn start(&self) {
        let mut child = self.child.lock().unwrap();
        assert!(child.is_none(), "{} runs already", self.name);
        let mut command = command(&self.dir, &self.log_path(), &self.flags(), self.open_files);
        *child = Some(command.envs(self.variables.iter().cloned()).spawn().unwrap());
        drop(child);
        self.wait_until_alive();
    }

    /// Starts it with pipes for its output that nobody reads, and waits until it answers.
    pub(crate) fn start_unheard(&self) {
        let mut command = command(&self.dir, &self.log_path(), &self.flags(), self.open_files);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        *self.child.lock().unwrap() = Some(command.spawn().unwrap());
        self.wait_until_alive();
    }

    /// Starts it, and waits until it is ready or has ended.
    ///
    /// # Errors
    /// The exit code with which it ended.
    pub(crate) fn try_start(&self) -> Result<(), i32> {
        let mut child = self.child.lock().unwrap();
        assert!(child.is_none(), "{} runs already", self.name);
        let mut command = command(&self.dir, &self.log_path(), &self.flags(), self.open_files);
        *child = Some(command.envs(self.variables.iter().cloned()).spawn().unwrap());
        drop(child);
        eventually(&format!("{} to be ready, or to end", self.name), || {
            let mut child = self.child.lock().unwrap();
            if let Some(status) = child.as_mut().unwrap().try_wait().unwrap() {
                child.take();
                return Some(Err(status.code().unwrap_or(-1)));
            }
            drop(child);
            self.try_get("/readyz").filter(|answer| answer.status == 200).map(|_| Ok(()))
        })
    }

    fn wait_until_alive(&self) {
        eventually(&format!("{} to answer", self.name), || {
            if let Some(status) = self.child.lock().unwrap().as_mut().unwrap().try_wait().unwrap() {
                panic!("{} ended with {status}:\n{}", self.name, self.log());
            }
            if self.client_flags.is_empty() {
                return self.try_get("/livez").filter(|answer| answer.status == 200).map(drop);
            }
            let flags: Vec<&str> = self.client_flags.iter().map(String::as_str).collect();
            let shell = Shell::at(&format!("https://localhost:{}", self.http_port));
            (shell.run(&[&["status"], &*flags].concat()).code == 0).then_some(())
        });
    }

    /// As after a loss of power, but that the page cache lives on.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap().take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.lock().unwrap();
        let id = child.as_ref().expect("it runs").id();
        kill_process(Pid::from_raw(id.cast_signed()).unwrap(), signal).unwrap();
    }

    /// Waits until the process has ended by itself.
    pub(crate) fn wait_for_end(&self) -> ExitStatus {
        let mut child = self.child.lock().unwrap().take().expect("it runs");
        eventually(&format!("{} to end", self.name), || child.try_wait().unwrap())
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.lock().unwrap().is_some()
    }

    #[track_caller]
    pub(crate) fn call(&self, method: &str, target: &str, body: &str) -> Response {
        match call(self.http_port, method, target, body) {
            Ok(response) => response,
            Err(error) => panic!("{}: {method} {target}: {error}", self.name),
        }
    }

    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Response {
        self.call("GET", target, "")
    }

    #[track_caller]
    pub(crate) fn set(&self, key: &str, value: &str) -> Response {
        let body = serde_json::json!({"key": key, "value": value, "action": "set"});
        self.call("POST", "/set", &body.to_string())
    }

    /// As [`Self::set`], if it answers.
    pub(crate) fn try_set(&self, key: &str, value: &str) -> Option<Response> {
        let body = serde_json::json!({"key": key, "value": value, "action": "set"});
        call(self.http_port, "POST", "/set", &body.to_string()).ok()
    }

    pub(crate) fn try_get(&self, target: &str) -> Option<Response> {
        call(self.http_port, "GET", target, "").ok()
    }

    /// `/v1/status`, if it answers.
    pub(crate) fn status(&self) -> Option<Value> {
        serde_json::from_str(&self.try_get("/v1/status")?.body).ok()
    }

    /// Waits until `/readyz` says so: a leader is known, a quorum confirms, what is committed is
    /// applied.
    #[track_caller]
    pub(crate) fn wait_until_ready(&self) {
        eventually(&format!("{} to be ready", self.name), || {
            self.try_get("/readyz").filter(|answer| answer.status == 200)
        });
    }

    /// Asks this node to add `other`, as the original's page does.
    pub(crate) fn join(&self, other: &Self) -> Response {
        self.call("POST", &format!("/join?nodeid={}&nodeaddr=localhost:{}", other.name, other.raft_port), "")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.lines().count().saturating_sub(40);
            eprintln!("---- {} (last lines)", self.name);
            log.lines().skip(tail).for_each(|line| eprintln!("{line}"));
        }
    }
}
