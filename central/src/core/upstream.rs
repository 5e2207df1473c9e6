//! Devices' writes as edges pass them on: the request of the link to a write of the shard, and its answer to a reply.

use carillon_world::{DeviceId, Problem, UpstreamReply, UpstreamRequest};

use super::input::ProfileEdit;
use super::problem;
use super::write::{Answer, Reply, Write};

/// The write that a request asks for. `drawn`: the id that a device gets which is not known yet.
///
/// # Errors
/// The refusal, if a value has no form that a write could have.
pub fn write_of(request: UpstreamRequest, drawn: DeviceId) -> Result<Write, Problem> {
    Ok(match request {
        UpstreamRequest::Enrol { publishable_key, secret, profile } => Write::Enrol {
            publishable_key: publishable_key.into(),
            device: drawn,
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
        UpstreamRequest::Seen { app, devices } => Write::Seen { app, devices },
        UpstreamRequest::Delivered { app, devices } => Write::Delivered { app, devices },
        UpstreamRequest::ReceiptBatch { devices } => Write::ReceiptBatch { devices },
    })
}

/// What the edge is told of the write's answer.
pub fn reply_of(Answer { result, at }: Answer) -> UpstreamReply {
    match result {
        Ok(Reply::Enrolled { app, device, generation, created }) => {
            UpstreamReply::Enrolled { app, device, generation, committed: at, created }
        }
        Ok(Reply::Session { generation }) => UpstreamReply::Session { generation, at },
        Ok(Reply::Done) => UpstreamReply::Written { committed: at },
        Ok(Reply::Receipts(outcomes)) => UpstreamReply::Receipts { committed: at, outcomes },
        Ok(_) => UpstreamReply::Refused { problem: problem::internal() },
        Err(problem) => UpstreamReply::Refused { problem },
    }
}
