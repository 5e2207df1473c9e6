//! Devices' writes as edges pass them on.

use bytes::Bytes;
use carillon_world::{DeviceId, Position};
use carillon_world::{Problem, UpstreamReply, UpstreamRequest};

use crate::core::input::ProfileEdit;
use crate::core::problem;
use crate::core::write::{Answer, Reply, Write};
use crate::shell::random;
use crate::shell::writer_task::WriteHandle;

/// The encoded reply to an encoded request.
pub(super) async fn answer(writes: &WriteHandle, body: &[u8]) -> Bytes {
    let write = UpstreamRequest::decode(body)
        .map_err(|e| problem::bad_request(e.to_string()))
        .and_then(write_of);
    let reply = match write {
        Ok(write) => reply_of(writes.write(write).await),
        Err(problem) => UpstreamReply::Refused { problem },
    };
    reply.encode()
}

fn write_of(request: UpstreamRequest) -> Result<Write, Problem> {
    Ok(match request {
        UpstreamRequest::Enrol { publishable_key, secret, profile } => Write::Enrol {
            publishable_key: publishable_key.into(),
            device: DeviceId::new(random::id()),
            secret,
            profile: ProfileEdit::from_patch(profile)?,
        },
        UpstreamRequest::Session { app, device, secret } => Write::Session { app, device, secret },
        UpstreamRequest::Patch { app, device, generation, patch } => {
            Write::PatchSelf { app, device, generation, edit: ProfileEdit::from_patch(patch)? }
        }
        UpstreamRequest::Forget { app, device, generation } => {
            Write::Forget { app, device, generation }
        }
        UpstreamRequest::Receipts { app, device, generation, receipts } => {
            Write::Receipts { app, device, generation, receipts }
        }
    })
}

fn reply_of(Answer { result, at }: Answer) -> UpstreamReply {
    let committed: Position = at;
    match result {
        Ok(Reply::Enrolled { app, device, generation, created }) => {
            UpstreamReply::Enrolled { app, device, generation, committed, created }
        }
        Ok(Reply::Session { generation }) => UpstreamReply::Session { generation, at },
        Ok(Reply::Done) => UpstreamReply::Written { committed },
        Ok(_) => UpstreamReply::Refused { problem: problem::internal() },
        Err(problem) => UpstreamReply::Refused { problem },
    }
}
