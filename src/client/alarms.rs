//! Alarms: what befell a node's data, until a person has seen it.

use crate::client::attempts::Client;
use crate::client::error::CallError;
use crate::client::request::Ask;
use serde::{Deserialize, Serialize};

/// The alarms of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmsReport {
    /// Its name.
    pub node: String,
    /// The alarms that nobody has acknowledged, oldest first.
    pub alarms: Vec<AlarmReport>,
}

/// An alarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmReport {
    /// Its number on its node.
    pub id: u64,
    /// What kind of thing befell the node, in one word.
    pub kind: String,
    /// What, in words.
    pub text: String,
    /// When, seconds since 1970.
    pub raised_at: u64,
}

impl Client {
    /// The alarms of the node that answers.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn alarms(&mut self) -> Result<AlarmsReport, CallError> {
        self.told(Ask::get("/v1/alarms".to_owned(), &[200])).await
    }

    /// A person has seen that alarm of the node that answers.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn acknowledge_alarm(&mut self, id: u64) -> Result<AlarmReport, CallError> {
        self.told(Ask::delete(format!("/v1/alarms/{id}"))).await
    }
}
