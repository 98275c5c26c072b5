//! The level at which both ends of a connection speak.
//!
//! The caller says which levels it speaks, and the called node chooses the highest one that both
//! know. A node of level 7 does not understand such a hello: it says so in the words of level 7,
//! and the caller calls once more, in those.

use crate::codec::{FeatureLevel, FeatureLevels, Reader};
use crate::peer::block::{Block, BlockError};
use crate::peer::hello::{HELLO_BYTES_MAX, HeardAnswer, Hello, HelloAnswer, Manner};
use bytes::Bytes;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};

/// At which levels a node can talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpokenLevels {
    /// The levels that it speaks.
    pub speaks: FeatureLevels,
    /// The level of its cluster, as far as it knows: nothing below is spoken in that cluster.
    pub needs: FeatureLevel,
}

impl SpokenLevels {
    /// Of a node that speaks for no cluster.
    pub(crate) const fn of_any_cluster(speaks: FeatureLevels) -> Self {
        Self { speaks, needs: speaks.lowest() }
    }

    /// The level at which two nodes talk, if there is one.
    pub(crate) fn common(self, other: Self) -> Option<FeatureLevel> {
        self.speaks.common(other.speaks, self.needs.max(other.needs))
    }
}

/// A hello, and what the caller speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// At which levels the caller can talk.
    pub levels: SpokenLevels,
    /// What the caller says of itself, and whom it calls.
    pub hello: Hello,
}

impl Greeting {
    /// The level in whose words it is said. From [`FeatureLevel::NEGOTIATES`] on these words stay
    /// the same.
    pub(crate) fn words(&self) -> FeatureLevel {
        self.levels.speaks.highest().min(FeatureLevel::NEGOTIATES)
    }

    /// Says hello.
    ///
    /// # Errors
    /// What the stream says.
    pub(crate) async fn write(&self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let (kind, mut words) = self.hello.to_words();
        let (level, mut body) = (self.words(), Vec::new());
        if level >= FeatureLevel::NEGOTIATES {
            self.levels.speaks.encode(&mut body);
            self.levels.needs.encode(&mut body);
        }
        body.append(&mut words);
        Block { level, kind, body }.write(stream).await
    }

    /// Listens for a hello, as a node that speaks these levels.
    ///
    /// # Errors
    /// [`BlockError`] for anything else.
    pub(crate) async fn read(
        stream: &mut (impl AsyncRead + Unpin),
        speaks: FeatureLevels,
    ) -> Result<Self, BlockError> {
        let understood = speaks.up_to(FeatureLevel::NEGOTIATES).unwrap_or(speaks);
        let block = Block::read(stream, understood, HELLO_BYTES_MAX).await?;
        let mut body = Reader::new(Bytes::from(block.body));
        let levels = if block.level >= FeatureLevel::NEGOTIATES {
            SpokenLevels { speaks: FeatureLevels::take(&mut body)?, needs: FeatureLevel::take(&mut body)? }
        } else {
            SpokenLevels::of_any_cluster(FeatureLevels::only(block.level))
        };
        Ok(Self { levels, hello: Hello::from_words(block.kind, body)? })
    }

    /// How a node answers that can talk at these levels.
    pub(crate) fn manner(&self, here: SpokenLevels) -> Manner {
        let agreed = self.levels.common(here).unwrap_or(here.speaks.lowest());
        Manner { words: self.words(), agreed, speaks: here.speaks }
    }
}

/// A connection whose called node has answered.
#[derive(Debug)]
pub(crate) struct Greeted<S> {
    /// The connection.
    pub stream: S,
    /// The answer.
    pub answer: HelloAnswer,
    /// The level at which both speak.
    pub level: FeatureLevel,
    /// The levels that the called node speaks.
    pub theirs: FeatureLevels,
}

/// Why a called node has given no answer.
#[derive(Debug)]
pub(crate) enum NotGreeted {
    /// There is no connection.
    NoConnection(io::Error),
    /// It hung up before it heard the hello.
    HungUp(io::Error),
    /// What it said is no answer.
    NoAnswer(BlockError),
    /// It is of an older release than this cluster can be talked to with. In words.
    TooOld(String),
}

/// Says hello over a connection that `dial` makes, and hears the answer. A node that does not
/// understand the hello is called once more, in words of its own level.
///
/// # Errors
/// [`NotGreeted`].
pub(crate) async fn greet<S, F>(
    levels: SpokenLevels,
    hello: &Hello,
    dial: impl Fn() -> F,
) -> Result<Greeted<S>, NotGreeted>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = io::Result<S>>,
{
    let mut greeting = Greeting { levels, hello: hello.clone() };
    loop {
        let mut stream = dial().await.map_err(NotGreeted::NoConnection)?;
        greeting.write(&mut stream).await.map_err(NotGreeted::HungUp)?;
        let heard = HelloAnswer::read(&mut stream, greeting.levels.speaks).await;
        let HeardAnswer { answer, words, agreed: (level, theirs) } = heard.map_err(NotGreeted::NoAnswer)?;
        if words < greeting.words() {
            greeting.levels.speaks = older(levels, words).map_err(NotGreeted::TooOld)?;
            continue;
        }
        if answer == HelloAnswer::Accepted && (level < levels.needs || !levels.speaks.contains(level)) {
            return Err(NotGreeted::NoAnswer(BlockError::Level { found: level, here: levels.speaks }));
        }
        return Ok(Greeted { stream, answer, level, theirs });
    }
}

/// The levels at which a node can be called that speaks nothing above `theirs`.
fn older(levels: SpokenLevels, theirs: FeatureLevel) -> Result<FeatureLevels, String> {
    let speaks = levels.speaks.up_to(theirs).filter(|_| theirs >= levels.needs);
    speaks.ok_or_else(|| {
        let least = levels.needs.max(levels.speaks.lowest());
        format!(
            "it speaks level {theirs} of the protocol at most, and this cluster is at level {least}: upgrade that node to this \
             node's release"
        )
    })
}

#[cfg(test)]
mod tests;
