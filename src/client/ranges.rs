//! Ranges, page by page.

use crate::client::attempts::Client;
use crate::client::error::CallError;
use crate::client::json::{KeyValueBody, NoSuchJson, PrefixBody};
use crate::client::request::Ask;
use crate::client::target::{Target, percent_encode};
use crate::kv::{Detail, KeyRange, KeyValue, Revision};
use crate::replica::Level;
use bytes::Bytes;
use serde::Deserialize;

/// Which keys are listed, and what is wanted of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    /// Which keys.
    pub range: KeyRange,
    /// What is wanted of each key.
    pub detail: Detail,
    /// Keys that have this in them behind the range's start are gathered: of each group only the
    /// beginning, delimiter included, is answered.
    pub delimiter: Option<Bytes>,
    /// As of which revision; `None`: now. All pages are as of one revision anyhow.
    pub at: Option<Revision>,
    /// How many keys (and prefixes) a page has at most; `None`: as many as the node likes.
    pub page_keys: Option<u64>,
    /// How fresh the first page must be.
    pub level: Level,
}

impl ListQuery {
    /// All of a range, now.
    #[must_use]
    pub fn of(range: KeyRange) -> Self {
        let (delimiter, at, page_keys) = (None, None, None);
        Self { range, detail: Detail::Values, delimiter, at, page_keys, level: Level::default() }
    }
}

/// A part of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// The revision that is listed: the same on all pages.
    pub revision: Revision,
    /// The keys, ascending.
    pub kvs: Vec<KeyValue>,
    /// Beginnings of keys that the delimiter gathered, ascending.
    pub prefixes: Vec<Bytes>,
    /// How many keys the whole range has.
    pub count: u64,
}

/// The pages of a range, one after the other. They are one state, whichever nodes answer.
#[derive(Debug)]
pub struct Pages<'c> {
    client: &'c mut Client,
    level: Level,
    /// What is asked next; `None`: there are no more.
    next: Option<Target>,
}

#[derive(Deserialize)]
pub(super) struct PageBody {
    pub(super) revision: Revision,
    #[serde(default)]
    kvs: Vec<KeyValueBody>,
    #[serde(default)]
    prefixes: Vec<PrefixBody>,
    count: u64,
    #[serde(default)]
    cursor: Option<String>,
}

impl TryFrom<PageBody> for KeyPage {
    type Error = NoSuchJson;

    fn try_from(body: PageBody) -> Result<Self, NoSuchJson> {
        Ok(Self {
            revision: body.revision,
            kvs: body.kvs.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            prefixes: body.prefixes.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            count: body.count,
        })
    }
}

impl Client {
    /// The keys of a range, in their order.
    pub fn list(&mut self, query: &ListQuery) -> Pages<'_> {
        let mut target = Target::new("/v1/kv").with_range(&query.range);
        if let Some(delimiter) = &query.delimiter {
            target = target.with_bytes("delimiter", delimiter);
        }
        let target = target
            .with_flag("keys_only", query.detail == Detail::Keys)
            .with_flag("count_only", query.detail == Detail::Count)
            .with_some("at", query.at)
            .with_some("limit", query.page_keys);
        Pages { client: self, level: query.level, next: Some(target) }
    }

    /// How many keys a range has, and as of which revision.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn count(&mut self, range: &KeyRange, level: Level) -> Result<(u64, Revision), CallError> {
        let query = ListQuery { detail: Detail::Count, level, ..ListQuery::of(range.clone()) };
        let page = self.list(&query).next().await?.unwrap_or_default();
        Ok((page.count, page.revision))
    }
}

impl Pages<'_> {
    /// The next page; `None`: there are no more. After an error the same page is asked for again.
    ///
    /// # Errors
    /// [`CallError`]. If the revision has been compacted meanwhile, the pages cannot go on.
    pub async fn next(&mut self) -> Result<Option<KeyPage>, CallError> {
        let Some(target) = &self.next else { return Ok(None) };
        let target = target.clone().with_level(self.level);
        let ask = match target.to_long_json() {
            Some(body) => Ask::post("/v1/range".to_owned(), body).map(Ask::harmless),
            None => Ask::get(target.into_text(), &[200]),
        };
        let answer = self.client.call(ask).await?;
        let body = serde_json::from_slice::<PageBody>(&answer.body);
        let mut body = body.map_err(|_| self.client.nonsense(&answer, false))?;
        self.next = body.cursor.take().map(|cursor| {
            let mut encoded = String::new();
            percent_encode(&mut encoded, cursor.as_bytes(), b"");
            Target::new("/v1/kv").with("cursor", encoded)
        });
        let page = body.try_into().map_err(|NoSuchJson| self.client.nonsense(&answer, false))?;
        Ok(Some(page))
    }
}
