//! Figures of a run: how often the product did each thing, whatever asked for it. The laws judge a
//! single run. Figures are compared over many runs with those of earlier ones (`run::vitals`), and
//! so show what no law was written for.

#[cfg(test)]
mod tests;

use infinitystore::raft::Body;
use infinitystore::replica::{Actions, ClientReply, Notice, PeerMessage, StorageRequest};
use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write};

/// How often each thing was done, or how much of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures(BTreeMap<String, u64>);

/// What the name of a sum of microseconds ends with. Without it, it names how many were added up.
pub const TIME: &str = " µs";
/// Names are no longer than this.
const NAME_BYTES_MAX: usize = 64;

/// A name that is put together without an allocation; what is too much is cut off.
struct Name {
    bytes: [u8; NAME_BYTES_MAX],
    length: usize,
}

impl Name {
    const fn new() -> Self {
        Self { bytes: [0; NAME_BYTES_MAX], length: 0 }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or("")
    }
}

impl Write for Name {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.length + character.len_utf8() > NAME_BYTES_MAX {
                return Err(fmt::Error);
            }
            character.encode_utf8(&mut self.bytes[self.length..]);
            self.length += character.len_utf8();
        }
        Ok(())
    }
}

/// Writes the first word of what a value shows of itself: the name of its variant.
struct Variant<'a>(&'a mut Name);

impl Write for Variant<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let word = text.split(|it: char| !it.is_alphanumeric()).next().unwrap_or("");
        self.0.write_str(word)?;
        // All that comes after the first word is left out.
        Err(fmt::Error)
    }
}

impl Figures {
    /// Adds to a figure.
    pub fn add(&mut self, name: &str, amount: u64) {
        match self.0.get_mut(name) {
            Some(sum) => *sum += amount,
            None => drop(self.0.insert(name.to_owned(), amount)),
        }
    }

    /// Counts a value by its kind and the name of its variant.
    pub fn count(&mut self, kind: &str, value: &impl Debug) {
        self.add_by(kind, value, "", 1);
    }

    /// Adds to the figure of a variant.
    pub fn add_by(&mut self, kind: &str, value: &impl Debug, unit: &str, amount: u64) {
        let mut name = Name::new();
        // What does not fit is cut off, and a variant ends with an error: it has been written.
        let _ = write!(name, "{kind} ");
        let _ = write!(Variant(&mut name), "{value:?}");
        let _ = name.write_str(unit);
        self.add(name.as_str(), amount);
    }

    /// What a replica asks for after a step.
    pub fn stepped(&mut self, actions: &Actions) {
        for message in &actions.messages {
            self.sent(message);
        }
        for notice in &actions.notices {
            match notice {
                Notice::RoleChanged { role, .. } => self.count("became", role),
                _ => self.count("notice", notice),
            }
        }
        for request in &actions.storage {
            self.count("storage", request);
            if let StorageRequest::SaveSnapshot(save) = request {
                self.add("bytes of saved stores", save.store.bytes());
            }
        }
    }

    /// A question was answered: of whom, with what, and after how many microseconds.
    pub fn answered(&mut self, asker: &str, reply: &ClientReply, took: u64) {
        match reply {
            ClientReply::Failed(error) => self.count(asker, error),
            _ => {
                if let ClientReply::Written(outcome) = reply {
                    self.count("outcome", outcome);
                }
                self.count(asker, reply);
                self.add_by(asker, reply, TIME, took);
            }
        }
    }

    fn sent(&mut self, message: &PeerMessage) {
        match message {
            PeerMessage::Raft(raft) => {
                self.count("sent", &raft.body);
                if let Body::AppendEntries { entries, .. } = &raft.body
                    && !entries.is_empty()
                {
                    self.add("sent with entries", 1);
                    self.add("entries sent", entries.len() as u64);
                }
            }
            _ => self.count("sent", message),
        }
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// A figure; 0 if nothing was added to it.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}
