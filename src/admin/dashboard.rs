//! `/`: the dashboard, one document that needs nothing else but the events of `/events`, once a second.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};

use super::metrics::Metrics;
use super::overview::{EVERY, Overviews};
use super::{Body, HttpResponse, full};
use crate::shard::shared::Shared;

/// What a browser may do with the page: run what is in it, look the way it says, and ask where it came from. Nothing else.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
     img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static PAGE: LazyLock<Bytes> = LazyLock::new(|| {
    let style = concat!(include_str!("dashboard/uplot/uPlot.min.css"), include_str!("dashboard/style.css"));
    let parts = [
        ("<!-- style -->", "style", style),
        ("<!-- uplot -->", "script", include_str!("dashboard/uplot/uPlot.iife.min.js")),
        ("<!-- script -->", "script", include_str!("dashboard/script.js")),
    ];
    let page =
        parts.into_iter().fold(include_str!("dashboard/index.html").to_owned(), |page, (at, tag, text)| {
            page.replacen(at, &format!("<{tag}>{text}</{tag}>"), 1)
        });
    Bytes::from(page)
});

/// The page.
pub(super) fn page() -> HttpResponse {
    full(PAGE.clone())
}

/// An event a second, for as long as somebody listens (`text/event-stream`, WHATWG HTML, section 9.2).
pub(super) fn events(
    shared: &Arc<Shared>,
    metrics: &Arc<Metrics>,
    overviews: &Arc<Overviews>,
) -> HttpResponse {
    let state = (Arc::clone(shared), Arc::clone(metrics), Arc::clone(overviews), true);
    let events = stream::unfold(state, |(shared, metrics, overviews, first)| async move {
        if !first {
            tokio::time::sleep(EVERY).await;
        }
        let event = match overviews.latest(&shared, metrics.process()) {
            Ok(json) => [b"data: ", json.as_ref(), b"\n\n"].concat(),
            // A comment: it keeps the connection.
            Err(_) => b":\n\n".to_vec(),
        };
        let frame = Ok::<_, Infallible>(Frame::data(Bytes::from(event)));
        Some((frame, (shared, metrics, overviews, false)))
    });
    let body: Body = StreamBody::new(events).boxed_unsync();
    HttpResponse::new(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_asks_nobody_else() {
        let page = std::str::from_utf8(&PAGE).unwrap();
        assert!(
            !page.contains("<!-- style -->") && !page.contains("<!-- script -->") && page.contains("uPlot")
        );
        for foreign in ["src=\"", "<link", "@import", "url(http"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }
}
