//! Devices' writes as edges pass them on.

use bytes::Bytes;
use carillon_world::{DeviceId, UpstreamReply, UpstreamRequest};

use crate::core::problem;
use crate::core::upstream::{reply_of, write_of};
use crate::shell::random;
use crate::shell::write_handle::WriteHandle;

/// The encoded reply to an encoded request.
pub(super) async fn answer(writes: &WriteHandle, body: &[u8]) -> Bytes {
    let write = UpstreamRequest::decode(body)
        .map_err(|e| problem::bad_request(e.to_string()))
        .and_then(|request| write_of(request, DeviceId::new(random::id())));
    let reply = match write {
        Ok(write) => reply_of(writes.write(write).await),
        Err(problem) => UpstreamReply::Refused { problem },
    };
    reply.encode()
}
