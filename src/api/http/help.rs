//! `GET /`: what can be asked.

use crate::api::http::answer::Answer;
use hyper::StatusCode;

const PAGE: &str = "\
InfinityStore

  curl -i -X POST http://HOST/set -d '{\"key\":\"foo\", \"value\":\"bar\",\"action\":\"set\"}'
  curl -X GET  'http://HOST/get?key=foo'
  curl -X GET  'http://HOST/get?key=foo&level=local'
  curl -i -X POST http://HOST/set -d '{\"key\":\"foo\",\"action\":\"delete\"}'
  curl -i -X POST 'http://HOST/join?nodeid=node-2&nodeaddr=localhost:8010'
  (-i shows the headers: infinitystore-reason says why something was refused, infinitystore-outcome
  whether a write that failed may still happen)

  curl http://HOST/v1/status        this node, and the cluster as it sees it
  curl http://HOST/livez            whether the process runs
  curl http://HOST/readyz?verbose   whether it can serve
  curl http://HOST/metrics          for Prometheus
";

pub(super) fn handle() -> Answer {
    Answer::text(StatusCode::OK, PAGE)
}
