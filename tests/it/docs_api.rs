//! The README's tour, the recipes and the pages in `docs/api`: each command is run, and answers
//! what the page says.

use crate::support::{Cluster, Node};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

/// What a page writes for the address of a node.
const HOST: &str = "localhost:8001";
/// What a page writes for the raft address of a node that is no member yet.
const SPARE: &str = "localhost:8030";
/// Stands for anything.
const ANYTHING: char = '…';

/// A command of a page, and what the page says that it answers.
#[derive(Debug)]
pub(crate) struct Example {
    pub(crate) command: String,
    pub(crate) answer: String,
}

#[test]
fn the_commands_of_the_pages_answer_what_the_pages_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = fs::read_dir(root.join("docs/api")).unwrap();
    let mut pages: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    pages.extend([root.join("README.md"), root.join("docs/recipes.md")]);
    pages.sort();
    assert!(pages.len() > 5, "the pages were not found");
    for page in pages {
        let examples = examples(&fs::read_to_string(&page).unwrap());
        let page = page.file_name().unwrap().to_string_lossy().into_owned();
        assert!(!examples.is_empty(), "{page} has no examples");
        let mut cluster = Cluster::start(3, &[]);
        // A node that is to be added.
        cluster.start_node().wait_until_ready();
        let spare = format!("localhost:{}", cluster.nodes[3].raft_port);
        // Every node takes every request.
        for (example, node) in examples.iter().zip(cluster.nodes[..3].iter().cycle()) {
            let command = example.command.replace(SPARE, &spare);
            let answered = run(node, &command, &example.answer);
            assert!(
                matches(&answered, &example.answer),
                "{page}: {}\nanswers\n{answered}\nand not\n{}",
                example.command,
                example.answer
            );
        }
    }
}

/// The commands in blocks of `console`.
pub(crate) fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside && let Some(command) = line.strip_prefix("$ ") {
            examples.push(Example { command: command.to_owned(), answer: String::new() });
        } else if inside {
            let example = examples.last_mut().expect("a block begins with a command");
            example.answer.push_str(line);
            example.answer.push('\n');
        }
    }
    examples
}

/// What `curl` would print. A stream is read until it is as long as `expected`.
fn run(node: &Node, command: &str, expected: &str) -> String {
    let words = split(command);
    assert_eq!(words.first().map(String::as_str), Some("curl"), "{command}");
    let (mut method, mut body, mut headers, mut target) = (None, None, String::new(), None);
    let (mut head, mut streams) = (false, false);
    let mut words = words.into_iter().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("an option has a value");
        match &*word {
            "-i" => head = true,
            "-N" => streams = true,
            "-X" => method = Some(value()),
            "-H" => headers.push_str(&format!("{}\r\n", value())),
            "-u" => {
                let credentials = infinitystore::codec::to_base64(value().as_bytes());
                headers.push_str(&format!("authorization: Basic {credentials}\r\n"));
            }
            "-d" | "--data-binary" => body = Some(value()),
            url => target = Some(url.strip_prefix(HOST).expect("a URL of the node").to_owned()),
        }
    }
    let (target, body) = (target.expect("a URL"), body.unwrap_or_default());
    let method = method.unwrap_or_else(|| if body.is_empty() { "GET" } else { "POST" }.to_owned());
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", node.http_port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut received = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let count = match stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.unwrap(),
        };
        received.extend_from_slice(&buffer[..count]);
        let answer = answer(&received, head, expected);
        if count == 0 || streams && answer.is_some_and(|answer| answer.len() >= expected.len()) {
            return self::answer(&received, head, expected).expect("a head");
        }
    }
}

/// The answer as `curl` prints it; of the headers, those that the page shows. `None`: its head has
/// not come.
fn answer(received: &[u8], head: bool, expected: &str) -> Option<String> {
    let end = received.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head_text, body) = (std::str::from_utf8(&received[..end]).unwrap(), &received[end + 4..]);
    let chunked = head_text.contains("transfer-encoding: chunked");
    let body = if chunked { chunks(body) } else { body.to_vec() };
    let mut text = String::new();
    if head {
        let shown: Vec<&str> = expected.lines().take_while(|line| !line.is_empty()).collect();
        for line in head_text.split("\r\n").filter(|line| shown.contains(line)) {
            text.push_str(line);
            text.push('\n');
        }
        if !body.is_empty() {
            text.push('\n');
        }
    }
    text.push_str(&String::from_utf8(body).expect("text"));
    // The prompt begins a new line.
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    Some(text)
}

/// Whole chunks.
fn chunks(mut body: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        let Some(chunk) = body.get(end + 2..end + 2 + length) else { break };
        text.extend_from_slice(chunk);
        body = body.get(end + 4 + length..).unwrap_or_default();
    }
    text
}

/// A line as a shell divides it: blanks, and quotes.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (None, ' ') => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Whether a text is as expected, where some of that may be anything.
pub(crate) fn matches(text: &str, expected: &str) -> bool {
    let mut parts = expected.split(ANYTHING);
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or("")) else { return false };
    let parts: Vec<&str> = parts.collect();
    for (place, part) in parts.iter().enumerate() {
        let found = if place + 1 == parts.len() {
            rest.ends_with(part).then(|| rest.len() - part.len())
        } else {
            rest.find(part)
        };
        let Some(at) = found else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

#[test]
fn what_a_page_says_is_compared() {
    assert!(matches("left: 7.1}\n", "left: …}\n") && matches("a", "a"));
    assert!(!matches("left: 7.1}\n", "left: …\n}\n") && !matches("ab", "a") && !matches("a", "ab"));
    assert_eq!(split("curl -d '{\"a\": 1}' 'x y'"), ["curl", "-d", "{\"a\": 1}", "x y"]);
}
