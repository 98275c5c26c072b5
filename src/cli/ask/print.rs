//! Results, to standard output.

use crate::cli::exit::{ExitStatus, Failure};
use crate::kv::KeyValue;
use comfy_table::{Table, presets};
use std::fmt::{Display, Write as _};
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

/// Characters of a value that a table shows, at most.
const SHOWN_CHARS_MAX: usize = 60;

/// Standard output. When nobody reads it any more, as with `head`, that is the end of the command
/// and no failure.
pub(in crate::cli) struct Output {
    out: BufWriter<StdoutLock<'static>>,
    /// Whether it is a terminal.
    pub(super) is_terminal: bool,
    /// Whether somebody still reads it.
    is_read: bool,
}

impl Output {
    pub(in crate::cli) fn new() -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        Self { out: BufWriter::with_capacity(64 << 10, stdout.lock()), is_terminal, is_read: true }
    }

    /// Whether somebody still reads it.
    pub(super) fn is_read(&self) -> bool {
        self.is_read
    }

    pub(in crate::cli) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.out.write_all(bytes);
        self.judge(written)
    }

    /// Bytes as they are, and a newline.
    pub(super) fn bytes_line(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.bytes(bytes)?;
        self.bytes(b"\n")
    }

    pub(super) fn line(&mut self, line: impl Display) -> Result<(), Failure> {
        let written = writeln!(self.out, "{line}");
        self.judge(written)
    }

    /// Hands on what has been printed.
    pub(in crate::cli) fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.out.flush();
        self.judge(flushed)
    }

    fn judge(&mut self, result: io::Result<()>) -> Result<(), Failure> {
        match result {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_read = false;
                Ok(())
            }
            Err(error) => Err(Failure::new(ExitStatus::Failure, format!("cannot print: {error}"))),
        }
    }
}

/// A line on standard output for whoever may read it. `dev` goes on, and stops its nodes, when
/// nobody does.
pub(in crate::cli) fn tell(text: impl Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// A word to the user of the command, on standard error. It is no failure if nobody listens.
pub(in crate::cli) fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A table for people, without lines between its columns.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    if !header.is_empty() {
        table.set_header(header.iter().copied());
    }
    table
}

/// The table's lines, without what pads their ends.
pub(super) fn lines_of(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Bytes as a person can read them on a line: text as it is, everything else escaped.
pub(in crate::cli) fn readable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' | '\n' | '\r' | '\t' => text.extend(c.escape_default()),
                '\0'..='\x1f' | '\x7f' => {
                    write!(text, "\\x{:02x}", u32::from(c)).expect("a String takes everything")
                }
                c if c.is_control() => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("a String takes everything");
        }
    }
    text
}

/// The beginning of a value, as a person can read it.
pub(in crate::cli) fn shortened(bytes: &[u8]) -> String {
    let text = readable(&bytes[..bytes.len().min(4 * SHOWN_CHARS_MAX)]);
    if text.chars().count() <= SHOWN_CHARS_MAX && bytes.len() <= 4 * SHOWN_CHARS_MAX {
        return text;
    }
    let beginning: String = text.chars().take(SHOWN_CHARS_MAX - 1).collect();
    format!("{beginning}…")
}

/// Whether bytes are text that does a terminal no harm.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    let harmless = |c: char| !c.is_control() || c == '\n' || c == '\t';
    std::str::from_utf8(bytes).is_ok_and(|text| text.chars().all(harmless))
}

/// `1 key`, `2 keys`.
pub(super) fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("{count} {one}") } else { format!("{count} {one}s") }
}

/// A key that does not exist.
pub(super) fn missing(key: &[u8]) -> Failure {
    Failure::new(ExitStatus::NotFound, format!("the key {} does not exist", readable(key)))
}

/// The lease that a key ends with, for a table.
pub(super) fn lease_of(found: &KeyValue) -> String {
    if found.lease.is_none() { "-".to_owned() } else { found.lease.to_string() }
}
