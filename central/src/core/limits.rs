//! Named maxima of what an operator, a device or a peer can make central hold. Each has its own error.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Changes in one batch. 4,000 rows are four multi-row statements of the store.
pub const BATCH_CHANGES_MAX: NonZeroUsize = NonZeroUsize::new(4_000).expect("not zero");
/// Encoded bytes of one batch: a quarter of the stream's window of 4 MiB, so that a window always holds several.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Writes that wait for a commit.
pub const PENDING_WRITES_MAX: usize = 16_384;
/// Bytes of the writes that wait for a commit, and of the changes that they made.
pub const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Starts and ends that one tick may commit, so that callers are not kept waiting behind a storm of them.
pub const TICK_CHANGES_MAX: usize = 1_000;
/// Rows of each table that one step forgets at most; fewer where that takes long.
pub const PURGE_STEP: u64 = 500;
/// Least time between two such steps, in ms.
pub const PURGE_PAUSE: u64 = 10;
/// Devices that one step looks at, to find those that were not seen for long: about 1 ms.
pub const SWEEP_DEVICES_MAX: usize = 5_000;
/// Forgotten devices of which one step deletes the receipts: each is a term of a condition.
pub const ERASE_DEVICES_MAX: usize = 100;
/// Idempotency keys that one tick forgets in RAM: about 1 ms.
pub const KEYS_FORGOTTEN_MAX: usize = 5_000;
/// How often the committed clock advances while something follows it, in ms.
pub const CLOCK_TICK: u64 = 10_000;
/// Volatile messages of an app that are scheduled or active. At a tick each of them is judged again for each device that
/// waits at an edge: about 0.1 µs, so a thousand of them and 100,000 devices are 10 s of a core.
pub const VOLATILE_MESSAGES_MAX: u64 = 1_000;
/// How long a device is kept that is not seen, in ms: 180 days.
pub const DEVICE_TTL: u64 = 180 * 24 * 60 * 60 * 1000;

pub const APP_NAME_BYTES_MAX: usize = 128;
pub const APPS_MAX: usize = 10_000;
pub const ATTRIBUTES_PER_APP_MAX: usize = 1_000;
/// Bytes of all that an audience says or said since the horizon: they are one record of a snapshot, of at most 1 MiB.
pub const AUDIENCE_REVISIONS_BYTES_MAX: usize = 768 * 1024;

/// A device's row is at most 320 KiB of texts with their lengths (5 B, where 4 are counted) + 256 × 16 B +
/// 1,024 × 9 B + 10 × 4 KiB, well below the 1 MiB of a record.
pub const DEVICE_ATTRIBUTES_MAX: usize = 256;
/// Bytes of the texts of a device's values, the entries of sets with 4 more each: 256 of the longest strings.
pub const DEVICE_VALUES_BYTES_MAX: usize = DEVICE_ATTRIBUTES_MAX * STRING_VALUE_BYTES_MAX;
pub const DEVICE_GROUPS_MAX: usize = 1_024;
pub const DEVICE_TOKENS_MAX: usize = 10;
pub const TOKEN_BYTES_MAX: usize = 4 * 1024;
pub const STRING_VALUE_BYTES_MAX: usize = 1024;
/// Distinct entries of a set.
pub const SET_ENTRIES_MAX: usize = 256;
pub const SET_ENTRY_BYTES_MAX: usize = 256;
pub const USER_BYTES_MAX: usize = 256;

pub const MESSAGE_BODY_BYTES_MAX: usize = 64 * 1024;
/// Arrays and objects within each other in a message's body. The strictest parser that devices are known to have
/// (.NET's) stops at 64, and an answer puts three around a body.
pub const MESSAGE_BODY_DEPTH_MAX: usize = 60;
pub const COLLAPSE_KEY_BYTES_MAX: usize = 64;
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
/// How long an idempotency key is known, in ms.
pub const IDEMPOTENCY_KEPT: u64 = 24 * 60 * 60 * 1000;
/// Keys held in RAM; about 200 bytes each. Beyond it a write with a key is refused, never one kept shorter.
pub const IDEMPOTENCY_KEYS_MAX: usize = 2_000_000;

/// 9999-12-30T00:00:00Z, the last whole day that RFC 3339 can write in every time zone.
pub const TIME_MAX: u64 = 253_402_128_000_000;
/// How long a message lives unless it says otherwise, in ms.
pub const MESSAGE_LIFE: u64 = 30 * 24 * 60 * 60 * 1000;

/// Ids in one `members:add` or `members:remove`.
pub const MEMBERS_MAX: usize = 10_000;
/// Devices of one members write; a call of more is a sequence of writes.
pub const MEMBERS_CHUNK: usize = 1_000;
/// Lines of one import write.
pub const IMPORT_CHUNK_LINES: usize = 500;
/// How often an import says how far it is, to a caller that asks for it.
pub const IMPORT_PROGRESS_PAUSE: Duration = Duration::from_secs(1);
/// Such writes of one import under way at a time: two batches, of which one gathers while the other is committed.
pub const IMPORT_CHUNKS_MAX: usize = 16;
/// Bytes of the lines of one import write.
pub const IMPORT_CHUNK_BYTES: usize = 256 * 1024;
/// As long as the export of any device: 6 B for each of `DEVICE_VALUES_BYTES_MAX` (a control character is
/// `\u0000`), 69 KiB of names of groups, 17 KiB of names of attributes, 240 KiB of tokens, together 1.9 MiB.
pub const IMPORT_LINE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bad lines and unknown ids that a report lists.
pub const REPORT_MAX: usize = 1_000;
/// Devices of one write that erases a user.
pub const ERASE_CHUNK: usize = 200;
/// How often it is looked for devices that joined a user while its devices were erased.
pub const ERASE_ROUNDS_MAX: usize = 10;
/// Messages, and audiences, that a problem lists.
pub const REFERENCES_MAX: usize = 100;
pub const RECEIPTS_MAX: usize = 200;
/// Bytes of the `action` of a receipt.
pub const ACTION_BYTES_MAX: usize = 64;
