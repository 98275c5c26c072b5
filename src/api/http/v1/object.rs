//! Reading a JSON object.

use crate::api::http::v1::problem::Problem;
use serde::de::DeserializeOwned;

/// An object in JSON.
pub(super) fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // A derived struct would also be read from an array of its fields.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Problem::bad("bad-json", "the body is not a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { "bad-field" } else { "bad-json" };
        Problem::bad(code, error.to_string())
    })
}
