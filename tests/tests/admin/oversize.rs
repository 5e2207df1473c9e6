//! Requests that are too large, or not as long as they say: the caller gets an answer even while it still sends, and
//! nothing is applied.

use serde_json::json;

use crate::bench::{Bench, Call};
use crate::messages::CREATE;
use crate::wire::Wire;

const BODY_BYTES_MAX: usize = 1024 * 1024;

pub(crate) async fn check(bench: &mut Bench) {
    let app = bench.app().await;
    let at = bench.cluster.admin_address();
    let call = format!("POST /v1/apps/{}/messages", app.id);
    let message = json!({"to": "all", "body": "x"}).to_string();
    let padded = |bytes: usize| message.clone() + &" ".repeat(bytes - message.len());
    bench.written(Call::to(CREATE, &[&app.id]).text(padded(BODY_BYTES_MAX))).await;
    for bytes in [BODY_BYTES_MAX + 1, 3 * BODY_BYTES_MAX, 8 * BODY_BYTES_MAX] {
        let body = padded(bytes);
        for chunked in [true, false] {
            let before = bench.state().await;
            let framing = match chunked {
                true => "transfer-encoding: chunked".to_owned(),
                false => format!("content-length: {bytes}"),
            };
            let mut wire = Wire::begin(at, &bench.admin, &call, &framing).await;
            for piece in body.as_bytes().chunks(50_000) {
                // Central may have stopped reading; what it answered is there all the same.
                let sent = if chunked { wire.chunk(piece).await } else { wire.send(piece).await };
                if sent.is_err() {
                    break;
                }
            }
            if chunked {
                let _ = wire.chunk(b"").await;
            }
            let answer = wire.answer().await;
            bench.problem(CREATE, &answer, 413, "too-large");
            bench.unmoved(before, &format!("{bytes} bytes, {framing}")).await;
        }
    }
    // Cut off, with a length and without: the request never came, whole as its JSON may look.
    for framing in
        ["transfer-encoding: chunked".to_owned(), format!("content-length: {}", message.len() + 1)]
    {
        let before = bench.state().await;
        let mut wire = Wire::begin(at, &bench.admin, &call, &framing).await;
        match framing.starts_with("transfer") {
            true => wire.chunk(message.as_bytes()).await.expect("taken"),
            false => wire.send(message.as_bytes()).await.expect("taken"),
        }
        drop(wire);
        // Another request on another connection is answered behind it.
        bench.written(Call::to(CREATE, &[&app.id]).text(message.clone())).await;
        assert_eq!(bench.state().await.0, before.0 + 1, "{framing}: half a request was applied");
    }
    // A head beyond 16 KiB, and one that is none.
    for (framing, status) in
        [(format!("x: {}", "x".repeat(17 * 1024)), 431), ("no header".to_owned(), 400)]
    {
        let before = bench.state().await;
        let answer = Wire::begin(at, &bench.admin, &call, &framing).await.answer().await;
        assert_eq!(answer.status, status, "{answer:?}");
        bench.unmoved(before, "a bad head").await;
    }
}
