//! A backup, as it comes.

use crate::client::attempts::{Client, connect};
use crate::client::connection::StreamedAnswer;
use crate::client::endpoint::Endpoint;
use crate::client::error::{CallError, CallFailure};
use crate::client::request::Ask;
use crate::client::target::Target;
use crate::replica::Level;
use bytes::Bytes;
use std::time::Duration;
use tokio::time::timeout;

/// A backup on its way. It is whole if [`BackupReader`](crate::storage::BackupReader) says so: that
/// its bytes have ended says nothing.
#[derive(Debug)]
pub struct BackupDownload {
    endpoint: Endpoint,
    answer: StreamedAnswer,
    /// A node that says nothing for this long is given up.
    silence_max: Duration,
}

impl Client {
    /// Begins a backup, of the first node that gives one. With [`Level::Linearizable`] it has every
    /// write that was answered before.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn backup(&mut self, level: Level) -> Result<BackupDownload, CallError> {
        let ask = Ask::get(Target::new("/v1/snapshot").with_level(level).into_text(), &[200]);
        let ask = ask.map_err(|failure| self.error(failure))?;
        let mut attempts_left = self.endpoints().len();
        loop {
            attempts_left -= 1;
            match self.begin(&ask).await {
                Ok(download) => return Ok(download),
                Err(failure) => {
                    let may_follow = ask.may_follow(&failure);
                    let error = self.error(failure);
                    if attempts_left == 0 || !may_follow {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn begin(&self, ask: &Ask) -> Result<BackupDownload, CallFailure> {
        let endpoint = self.endpoints()[self.place()].clone();
        let options = self.options();
        let late = |_| CallFailure::Late;
        let connection = connect(&endpoint, options).await?;
        let request = ask.to_http(&endpoint, options.credentials.as_ref(), false);
        let answer = timeout(options.answer_timeout, connection.stream(request)).await.map_err(late)??;
        if answer.status() == 200 {
            return Ok(BackupDownload { endpoint, answer, silence_max: options.answer_timeout });
        }
        let whole = answer.whole(options.answer_bytes_max);
        let whole = timeout(options.answer_timeout, whole).await.map_err(late)??;
        match ask.judge(whole) {
            Err(failure) => Err(failure),
            Ok(_) => Err(CallFailure::Nonsense("a backup begins with status 200".to_owned())),
        }
    }
}

impl BackupDownload {
    /// The next piece; `None`: the node sends no more.
    ///
    /// # Errors
    /// [`CallError`]: the connection broke, or nothing came in time.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, CallError> {
        let piece = timeout(self.silence_max, self.answer.piece()).await;
        piece.unwrap_or(Err(CallFailure::Late)).map_err(|failure| CallError {
            endpoint: self.endpoint.clone(),
            failure,
            is_write: false,
            maybe_done: false,
        })
    }

    /// The node that it is of.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}
