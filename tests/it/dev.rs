//! `dev`: a cluster to try, as a newcomer uses it.

use crate::support::{call, eventually, free_base_port};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use tempfile::TempDir;

/// `infinitystore dev`, with a pipe as its keyboard.
struct Dev {
    process: Child,
    said: Lines<BufReader<ChildStdout>>,
    dir: TempDir,
}

impl Dev {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_infinitystore"))
            .args(["dev", "--base-port", &free_base_port().to_string(), "--dir"])
            .arg(dir.path().join("cluster"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, said, dir }
    }

    fn enter(&mut self, line: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// What its nodes have logged.
    fn logs(&self) -> String {
        let files =
            std::fs::read_dir(self.dir.path().join("cluster")).unwrap().map(|entry| entry.unwrap().path());
        let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }

    /// Reads what it says up to the line that has `part` in it.
    #[track_caller]
    fn wait_for(&mut self, part: &str) -> String {
        let found = self.said.by_ref().map(Result::unwrap).find(|line| line.contains(part));
        found.unwrap_or_else(|| panic!("it ended without saying {part:?}"))
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_killed_node_is_told_of_and_can_be_started_again() {
    let mut dev = Dev::start();
    let row = dev.wait_for("node-2");
    dev.wait_for("Type `kill 2`");
    let logs = dev.logs();
    assert!(logs.contains("joined"), "{logs}");
    let warnings: Vec<&str> =
        logs.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
    assert!(warnings.is_empty(), "joins that go well warn of nothing: {warnings:#?}");
    let port: u16 = row.split("http://localhost:").nth(1).unwrap()[..6].trim().parse().unwrap();
    dev.enter("burn 2");
    dev.wait_for("type start, stop or kill");
    dev.enter("kill 2");
    let report = dev.wait_for("node-2 has ended");
    assert!(report.contains("start node-2"), "{report}");
    assert!(call(port, "GET", "/livez", "").is_err(), "it is gone");
    dev.enter("start 2");
    dev.wait_for("started node-2");
    eventually("node-2 to be ready", || {
        call(port, "GET", "/readyz", "").ok().filter(|answer| answer.status == 200)
    });
    let pid = Pid::from_raw(dev.process.id().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    dev.wait_for("the data stays in");
    assert!(dev.process.wait().unwrap().success());
}
