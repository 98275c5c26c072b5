//! Alarms: what befell this node's data, until a person has seen it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Alarms that stand at once, at most; the oldest goes.
const ALARMS_MAX: usize = 64;
/// Bytes of an alarm's text, at most.
const TEXT_BYTES_MAX: usize = 512;

/// The alarms of a node. All clones are one; shared between the node, which raises them, and the
/// HTTP server. The node keeps them in its data directory, so that they survive a restart.
#[derive(Clone, Debug, Default)]
pub struct Alarms(Arc<Mutex<Board>>);

/// Something that a person has to know of. It stands until it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Its number on this node; none is given twice.
    pub id: u64,
    /// What kind of thing befell it, in one word: `damage`, `repaired`, `state-differed`,
    /// `alarms-lost`.
    pub kind: String,
    /// What, in words.
    pub text: String,
    /// When, seconds since 1970; 0 in a simulation.
    pub raised_at: u64,
}

#[derive(Debug, Default)]
struct Board {
    last_id: u64,
    alarms: Vec<Alarm>,
    /// It has changed since it was written down.
    is_news: bool,
}

impl Alarms {
    /// The alarms that stand, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Alarm> {
        self.lock().alarms.clone()
    }

    /// Raises an alarm, unless one with these words stands. Returns whether it did. `is_dated`: the
    /// clock of the wall means something here.
    pub(crate) fn raise(&self, kind: &str, text: &str, is_dated: bool) -> bool {
        let text = one_line(text);
        let mut board = self.lock();
        if board.alarms.iter().any(|alarm| alarm.kind == kind && alarm.text == text) {
            return false;
        }
        let raised_at = seconds_now(is_dated);
        board.last_id += 1;
        let alarm = Alarm { id: board.last_id, kind: kind.to_owned(), text, raised_at };
        board.alarms.push(alarm);
        if board.alarms.len() > ALARMS_MAX {
            board.alarms.remove(0);
        }
        board.is_news = true;
        true
    }

    /// A person has seen it: it stands no longer. `None` if there is none of this number.
    pub(crate) fn acknowledge(&self, id: u64) -> Option<Alarm> {
        let mut board = self.lock();
        let position = board.alarms.iter().position(|alarm| alarm.id == id)?;
        board.is_news = true;
        Some(board.alarms.remove(position))
    }

    /// Whether anything has changed since it was written down.
    pub(crate) fn has_news(&self) -> bool {
        self.lock().is_news
    }

    /// What [`Self::take_news`] gave could not be written down.
    pub(crate) fn not_written(&self) {
        self.lock().is_news = true;
    }

    /// What is to be written down, if anything has changed since that was last asked.
    pub(crate) fn take_news(&self) -> Option<Vec<String>> {
        let mut board = self.lock();
        std::mem::take(&mut board.is_news).then(|| board.to_lines())
    }

    /// What an earlier process wrote down, or why that cannot be read. In that case nobody knows
    /// which alarms stood: an alarm says so. Their numbers are not known either, so the next ones
    /// go on at the seconds since 1970: no node gives a number a second.
    pub(crate) fn recall(&self, noted: Result<Vec<String>, String>, is_dated: bool) {
        match noted {
            Ok(lines) => self.restore(&lines),
            Err(why) => {
                {
                    let mut board = self.lock();
                    board.last_id = board.last_id.max(seconds_now(is_dated));
                }
                let text = format!("the note of the alarms that stood is lost, and they with it: {why}");
                self.raise("alarms-lost", &text, is_dated);
            }
        }
    }

    /// What was written down by an earlier process. What was raised since stays, and comes last.
    fn restore(&self, lines: &[String]) {
        let mut board = self.lock();
        let mut found = Board::from_lines(lines);
        for mut alarm in std::mem::take(&mut board.alarms) {
            let is_known = |known: &Alarm| known.kind == alarm.kind && known.text == alarm.text;
            if found.alarms.iter().any(is_known) {
                continue;
            }
            found.last_id = found.last_id.max(board.last_id) + 1;
            alarm.id = found.last_id;
            found.alarms.push(alarm);
            found.is_news = true;
        }
        *board = found;
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        // Plain values: consistent wherever a panic could have struck.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    fn to_lines(&self) -> Vec<String> {
        let last = std::iter::once(self.last_id.to_string());
        let alarms =
            self.alarms.iter().map(|it| format!("{}\t{}\t{}\t{}", it.id, it.raised_at, it.kind, it.text));
        last.chain(alarms).collect()
    }

    /// A line that makes no sense is passed over.
    fn from_lines(lines: &[String]) -> Self {
        let alarm = |line: &String| {
            let mut fields = line.splitn(4, '\t');
            let (id, raised_at) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            let (kind, text) = (fields.next()?.to_owned(), fields.next()?.to_owned());
            Some(Alarm { id, kind, text, raised_at })
        };
        let alarms: Vec<Alarm> = lines.iter().filter_map(alarm).take(ALARMS_MAX).collect();
        let noted = lines.first().and_then(|line| line.parse().ok()).unwrap_or_default();
        let last_id = alarms.iter().map(|alarm| alarm.id).fold(noted, u64::max);
        Self { last_id, alarms, is_news: false }
    }
}

/// Seconds since 1970; 0 where the clock of the wall means nothing.
fn seconds_now(is_dated: bool) -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if is_dated { now() } else { 0 }
}

/// On one line, and not too long.
fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|end| line.is_char_boundary(*end)).unwrap_or_default();
        line.truncate(end);
    }
    line
}

#[cfg(test)]
mod tests;
