//! `lock` and `lease keepalive` where nodes do not answer, and `lock` on a terminal.

use crate::holding::{BINARY, OBEDIENT, lease_of, one_node, read_request};
use crate::support::{Ran, Shell, eventually};
use rustix::process::Signal;
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

/// What nodes say of a lease, whatever is asked: granted, renewed, ended.
const LEASE: &str = "200 OK\n{\"id\":7,\"ttl\":6,\"left\":6.0,\"revision\":1,\"deleted\":1}";
/// What a node says to whoever has won.
const WON: &str = "200 OK\n{\"lease\":7,\"fence\":3,\"key\":\"k\",\"revision\":3}";
const NO_LEADER: &str = "503 x\n{\"code\":\"no-leader\",\"detail\":\"in words\",\"outcome\":\"not-applied\"}";

/// A server that says this to each request, and nothing where `answer` has nothing: a status and a
/// body, or all of an answer as it is.
pub(crate) fn fake<A: AsRef<str>>(
    answer: impl Fn(&str) -> Option<A> + Send + Copy + 'static,
) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (asked, heard) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let asked = asked.clone();
            thread::spawn(move || {
                loop {
                    let request = read_request(&mut stream);
                    if request.is_empty() || asked.send(request.clone()).is_err() {
                        return;
                    }
                    // The connection stays.
                    let Some(answer) = answer(&request) else { continue };
                    if stream.write_all(whole(answer.as_ref()).as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (addr, heard)
}

fn whole(answer: &str) -> String {
    if answer.starts_with("HTTP/1.1 ") {
        return answer.to_owned();
    }
    let (status, body) = answer.split_once('\n').unwrap();
    let head = "content-type: application/problem+json\r\ninfinitystore-revision: 1\r\n";
    format!("HTTP/1.1 {status}\r\n{head}content-length: {}\r\n\r\n{body}", body.len())
}

fn is_campaign(request: &str) -> bool {
    request.starts_with("POST /v1/locks/")
}

fn endpoints(addrs: &[SocketAddr]) -> Shell {
    Shell::at(&addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
}

/// Those of the requests that stand for the lock: how long each would wait.
fn waits(heard: &mpsc::Receiver<String>) -> Vec<u64> {
    let campaigns = heard.try_iter().filter(|request| is_campaign(request));
    let wait = |request: String| {
        let (_, rest) = request.split_once("wait=").unwrap();
        rest.split_once("ms").unwrap().0.parse().unwrap()
    };
    campaigns.map(wait).collect()
}

#[test]
fn one_that_waits_a_short_time_tries_again() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let (addr, heard) = fake(|request| {
        let is_first = || ASKED.fetch_add(1, Ordering::Relaxed) == 0;
        Some(if !is_campaign(request) {
            LEASE
        } else if is_first() {
            NO_LEADER
        } else {
            WON
        })
    });
    let ran = endpoints(&[addr]).run(&["lock", "l", "--wait", "50s", "--", "echo", "runs"]);
    assert_eq!(ran.ok(), "runs\n");
    let waits = waits(&heard);
    assert!(waits.len() == 2 && waits[1] < waits[0], "the time that is left: {waits:?}");
}

#[test]
fn each_node_is_asked_to_wait_for_what_is_left() {
    let lease_only = |request: &str| (!is_campaign(request)).then_some(LEASE);
    let nodes = [fake(lease_only), fake(lease_only), fake(lease_only)];
    let shell = endpoints(&nodes.each_ref().map(|(addr, _)| *addr));
    let args = ["--timeout", "500ms", "--wait", "1s", "--", "echo", "runs"];
    shell.run(&[&["lock", "l"], &args[..]].concat()).failed(5, "no answer in time");
    let waits = nodes.each_ref().map(|(_, heard)| waits(heard));
    assert!(waits[0].len() == 1 && waits[0][0] > 900, "{waits:?}");
    assert_eq!(waits[1..], [[0], [0]], "the time was over, and each was asked once");
}

#[test]
fn a_frozen_node_does_not_cost_the_lease_that_another_one_granted() {
    let (cluster, _) = one_node();
    let (frozen, _heard) = fake(|_| None::<&str>);
    let shell = Shell::at(&format!("{frozen},localhost:{}", cluster.nodes[0].http_port));
    let ran = shell.run(&["lock", "l", "--ttl", "4s", "--", "echo", "runs"]);
    assert_eq!((ran.ok(), &*ran.err), ("runs\n", ""));
    assert_eq!(shell.run(&["lease", "ls", "--timeout", "1s"]).ok(), "", "it is given back");
    // So many that the time of the lease is over before the last one is asked.
    let many = format!("{frozen},").repeat(5);
    let shell = Shell::at(&format!("{many}localhost:{}", cluster.nodes[0].http_port));
    assert_eq!(shell.run(&["lock", "l", "--ttl", "2s", "--", "echo", "runs"]).ok(), "runs\n");
}

#[test]
fn a_node_that_freezes_does_not_cost_the_lease_that_is_kept_alive() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    // Its first answer is its last one.
    let (freezing, first) = fake(|_| {
        let is_first = ASKED.fetch_add(1, Ordering::Relaxed) == 0;
        is_first.then_some(LEASE)
    });
    let (other, second) = fake(|_| Some(LEASE));
    let mut keeping = endpoints(&[freezing, other]).start(&["lease", "keepalive", "7"]);
    assert_eq!(keeping.line(), "lease 7, 6s");
    assert!(first.recv().unwrap().starts_with("POST /v1/leases/7/keepalive"));
    let confirmed = Instant::now();
    assert!(second.recv().unwrap().starts_with("POST /v1/leases/7/keepalive"));
    assert!(confirmed.elapsed().as_secs() < 6, "the lease has ended: {:?}", confirmed.elapsed());
    assert_eq!(keeping.line(), "lease 7, 6s");
}

#[test]
fn a_lock_is_given_back_though_its_node_hangs() {
    let (hanging, _heard) = fake(|request| match request {
        request if request.starts_with("DELETE") => None,
        request => Some(if is_campaign(request) { WON } else { LEASE }),
    });
    let (other, heard) = fake(|_| Some(LEASE));
    let ran = endpoints(&[hanging, other]).run(&["lock", "l", "--", "echo", "runs"]);
    assert_eq!((ran.ok(), &*ran.err), ("runs\n", ""), "nothing to complain about");
    assert!(heard.try_iter().any(|request| request.starts_with("DELETE /v1/leases/7 ")));
}

#[test]
fn a_password_is_read_once() {
    let (addr, heard) = fake(|request| Some(if is_campaign(request) { WON } else { LEASE }));
    let args = ["lock", "l", "--user", "ann", "--password-file", "/dev/stdin", "--", "echo", "runs"];
    assert_eq!(endpoints(&[addr]).run_with(&args, b"secret\n").ok(), "runs\n");
    let asked: Vec<String> = heard.try_iter().collect();
    // `ann:secret`
    let shown = |request: &&String| !request.contains("authorization: Basic YW5uOnNlY3JldA==");
    assert_eq!(asked.iter().find(shown), None);
}

/// A terminal, and a command in a session of its own of which it is the terminal.
struct Terminal {
    keyboard: File,
    name: String,
}

impl Terminal {
    fn new() -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
        Self { keyboard: keyboard.into(), name }
    }

    /// The words of a command that runs there, with its standard streams elsewhere: the leader of a
    /// session that opens a terminal has it as its own.
    fn words<'w>(&'w self, words: &[&'w str]) -> Vec<&'w str> {
        let begin = ["sh", "-c", "exec 3<>\"$0\"; exec \"$@\" 3>&-", &self.name];
        begin.into_iter().chain([BINARY]).chain(words.iter().copied()).collect()
    }

    fn press(&mut self, key: u8) {
        self.keyboard.write_all(&[key]).unwrap();
    }
}

#[test]
fn on_a_terminal_a_command_stays_in_the_foreground_wherever_its_input_comes_from() {
    let (_cluster, shell) = one_node();
    let terminal = Terminal::new();
    // Its process group, and that of the terminal's foreground.
    let script = "read -r pid name state parent group session tty foreground rest < /proc/$$/stat; \
                  echo $group $foreground";
    let ran: Ran = shell.start_apart(&terminal.words(&["lock", "l", "--", "sh", "-c", script])).end();
    let (group, foreground) = ran.ok().trim_end().split_once(' ').unwrap();
    assert_eq!(group, foreground);
}

#[test]
fn what_is_typed_at_a_terminal_reaches_the_command_once_and_the_lock_is_given_back() {
    let (_cluster, shell) = one_node();
    // Ctrl-C and Ctrl-\.
    for (key, name) in [(3, "INT"), (28, "QUIT")] {
        let mut terminal = Terminal::new();
        // It goes on for long enough to be told twice.
        let script = format!(
            "trap 'echo got {name}; trap \"echo twice\" {name}; sleep 0.3; exit 3' {name}; echo runs; \
             while :; do sleep 0.05; done"
        );
        let mut lock = shell.start_apart(&terminal.words(&["lock", "l", "--", "sh", "-c", &script]));
        assert_eq!(lock.line(), "runs");
        terminal.press(key);
        let ran = lock.end();
        assert_eq!((ran.code, ran.text()), (3, &*format!("got {name}\n")), "{ran:?}");
        assert_eq!(shell.run(&["lease", "ls"]).ok(), "");
    }
}

#[test]
fn one_that_is_told_to_quit_passes_it_on_and_gives_the_lock_back() {
    let (cluster, shell) = one_node();
    let script = "trap 'echo got QUIT; exit 3' QUIT; echo runs; while :; do sleep 0.05; done";
    let lock_args = ["lock", "l", "--", "sh", "-c", script];
    let mut lock = shell.start_apart(&[&[BINARY], &lock_args[..]].concat());
    assert_eq!(lock.line(), "runs");
    lock.signal(Signal::QUIT);
    let ran = lock.end();
    assert_eq!((ran.code, ran.text()), (3, "got QUIT\n"), "{ran:?}");
    assert_eq!(lease_of(&cluster, "l"), None);
    // One that waits leaves the queue.
    let mut first = shell.start(&["lock", "l", "--", "sh", "-c", OBEDIENT]);
    assert_eq!(first.line(), "runs");
    let second = shell.start(&["lock", "l", "--", "echo", "second"]);
    eventually("the second to stand in the queue", || {
        (shell.run(&["kv", "ls", "--count"]).ok() == "2\n").then_some(())
    });
    second.signal(Signal::QUIT);
    second.end().failed(130, "SIGQUIT");
    assert_eq!(shell.run(&["kv", "ls", "--count"]).ok(), "1\n");
}
