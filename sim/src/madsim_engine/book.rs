//! What clients asked over HTTP and what they were answered, by process: its own counters have to
//! agree.

use std::collections::BTreeMap;

/// A process: machine and life.
pub(super) type ProcessId = (usize, u32);

/// Requests and answers.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Writes that did not come by `/set`, and how long they took.
    beside: BTreeMap<ProcessId, (u64, u64)>,
    /// How many of these have not been answered.
    pending_beside: BTreeMap<ProcessId, u64>,
    sent: BTreeMap<(ProcessId, &'static str), u64>,
    answered: BTreeMap<(ProcessId, &'static str, u16), u64>,
    /// Microseconds that clients waited for answers.
    waited: BTreeMap<(ProcessId, &'static str), u64>,
    /// Connections that clients made, and those on which they were turned away.
    made: BTreeMap<ProcessId, u64>,
    turned_away: BTreeMap<ProcessId, u64>,
    /// Connections on which there was an answer.
    spoken_to: BTreeMap<ProcessId, u64>,
    /// Requests for which there was no memory.
    without_room: BTreeMap<ProcessId, u64>,
}

impl Book {
    /// A request is sent.
    pub(super) fn sent(&mut self, slot: usize, life: u32, route: &'static str) {
        *self.sent.entry(((slot, life), route)).or_default() += 1;
    }

    /// An answer arrived.
    pub(super) fn answered(&mut self, slot: usize, life: u32, route: &'static str, code: u16) {
        *self.answered.entry(((slot, life), route, code)).or_default() += 1;
    }

    /// An answer came after so long.
    pub(super) fn took(&mut self, process: ProcessId, route: &'static str, micros: u64) {
        *self.waited.entry((process, route)).or_default() += micros;
    }

    /// A connection was made.
    pub(super) fn connected(&mut self, process: ProcessId) {
        *self.made.entry(process).or_default() += 1;
    }

    /// The first answer has come on a connection.
    pub(super) fn spoke(&mut self, process: ProcessId) {
        *self.spoken_to.entry(process).or_default() += 1;
    }

    /// On how many connections there was an answer.
    pub(super) fn spoken_to(&self, process: ProcessId) -> u64 {
        self.spoken_to.get(&process).copied().unwrap_or(0)
    }

    /// How many requests were sent to it.
    pub(super) fn asked_in_all(&self, process: ProcessId) -> u64 {
        let of = self.sent.range((process, "")..).take_while(|((of, _), _)| *of == process);
        of.map(|(_, count)| count).sum()
    }

    /// A write that did not come over HTTP is asked for.
    pub(super) fn asked_beside(&mut self, process: ProcessId) {
        self.beside.entry(process).or_default().0 += 1;
        *self.pending_beside.entry(process).or_default() += 1;
    }

    /// It was answered after so long.
    pub(super) fn answered_beside(&mut self, process: ProcessId, micros: u64) {
        self.beside.entry(process).or_default().1 += micros;
        *self.pending_beside.entry(process).or_default() -= 1;
    }

    /// Whether some of these have not been answered.
    pub(super) fn waits_beside(&self, process: ProcessId) -> bool {
        self.pending_beside.get(&process).is_some_and(|count| *count > 0)
    }

    /// How many writes did not come over HTTP, and how long they took, microseconds.
    pub(super) fn beside(&self, process: ProcessId) -> (u64, u64) {
        self.beside.get(&process).copied().unwrap_or_default()
    }

    /// A caller that made a connection was told that there are too many.
    pub(super) fn was_turned_away(&mut self, process: ProcessId) {
        *self.turned_away.entry(process).or_default() += 1;
    }

    /// A request was refused for want of memory.
    pub(super) fn had_no_room(&mut self, process: ProcessId) {
        *self.without_room.entry(process).or_default() += 1;
    }

    /// How many know that they were turned away, and how many can have been.
    pub(super) fn turned_away(&self, process: ProcessId) -> (u64, u64) {
        let of = |it: &BTreeMap<ProcessId, u64>| it.get(&process).copied().unwrap_or(0);
        (of(&self.turned_away), of(&self.made))
    }

    /// How many requests were refused for want of memory.
    pub(super) fn refused_for_room(&self, process: ProcessId) -> u64 {
        self.without_room.get(&process).copied().unwrap_or(0)
    }

    /// How many requests to a route were sent.
    pub(super) fn asked(&self, process: ProcessId, route: &'static str) -> u64 {
        self.sent.get(&(process, route)).copied().unwrap_or(0)
    }

    /// Of a route: how many requests were sent, how many were answered, and how long those took,
    /// microseconds.
    pub(super) fn waited(&self, process: ProcessId, route: &'static str) -> (u64, u64, u64) {
        let answered = self.answered.range((process, route, 0)..=(process, route, u16::MAX));
        let waited = self.waited.get(&(process, route)).copied().unwrap_or(0);
        (self.asked(process, route), answered.map(|(_, count)| count).sum(), waited)
    }

    /// Answers of a process that have arrived.
    pub(super) fn arrived(&self, process: ProcessId) -> BTreeMap<(String, u16), u64> {
        let of = self.answered.iter().filter(|((of, _, _), _)| *of == process);
        of.map(|((_, route, code), count)| (((*route).to_owned(), *code), *count)).collect()
    }

    /// Holds what a process says it has answered against what had arrived before that: none of it
    /// is missing, and nothing is counted without a request.
    pub(super) fn compare(
        &self,
        process: ProcessId,
        arrived: &BTreeMap<(String, u16), u64>,
        counted: &BTreeMap<(String, u16), u64>,
    ) -> Result<(), String> {
        for (key, arrived) in arrived {
            let (route, code) = key;
            let found = counted.get(key).copied().unwrap_or(0);
            // The metrics have no names for some.
            if found < *arrived && !matches!(code, 414 | 421 | 431) {
                return Err(format!("{arrived} answers {code} of {route} have arrived, {found} are counted"));
            }
        }
        let mut routes: BTreeMap<&str, u64> = BTreeMap::new();
        counted.iter().for_each(|((route, _), count)| *routes.entry(route).or_default() += count);
        for (route, counted) in routes {
            let sent = self.sent.iter().find(|((of, name), _)| *of == process && *name == route);
            let sent = sent.map_or(0, |(_, sent)| *sent);
            if counted > sent {
                return Err(format!("{counted} answers of {route} are counted, {sent} were asked for"));
            }
        }
        Ok(())
    }
}
