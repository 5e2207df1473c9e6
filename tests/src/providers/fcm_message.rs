//! The shape of FCM's `Message`: names, types and limits as its REST reference publishes them.

use serde_json::{Map, Value};

use super::books::Kind;

/// "4096 bytes for most messages … This includes both the keys and the values."
const PAYLOAD_MAX: usize = 4096;
/// Four weeks.
const TTL_MAX_S: f64 = 2_419_200.0;
const TOKEN_MAX: usize = 4096;

/// What counts of a message that is right.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) token: String,
    pub(super) kind: Kind,
    pub(super) collapse: Option<String>,
}

/// What a field holds.
enum Shape {
    Text,
    Bool,
    Int,
    Number,
    /// Seconds with up to nine digits after the point, and an `s`.
    Duration,
    /// `map (key: string, value: string)`.
    Texts,
    /// As `Texts`, with keys that FCM keeps for itself.
    Data,
    TextList,
    DurationList,
    OneOf(&'static [&'static str]),
    /// An object of somebody else's shape.
    Free,
    Object(&'static [(&'static str, Shape)]),
}

use Shape::{
    Bool, Data, Duration, DurationList, Free, Int, Number, Object, OneOf, Text, TextList, Texts,
};

const NOTIFICATION: Shape = Object(&[("title", Text), ("body", Text), ("image", Text)]);

const COLOR: Shape =
    Object(&[("red", Number), ("green", Number), ("blue", Number), ("alpha", Number)]);

const LIGHT_SETTINGS: Shape =
    Object(&[("color", COLOR), ("lightOnDuration", Duration), ("lightOffDuration", Duration)]);

const ANDROID_NOTIFICATION: Shape = Object(&[
    ("title", Text),
    ("body", Text),
    ("icon", Text),
    ("color", Text),
    ("sound", Text),
    ("tag", Text),
    ("clickAction", Text),
    ("bodyLocKey", Text),
    ("bodyLocArgs", TextList),
    ("titleLocKey", Text),
    ("titleLocArgs", TextList),
    ("channelId", Text),
    ("ticker", Text),
    ("sticky", Bool),
    ("eventTime", Text),
    ("localOnly", Bool),
    (
        "notificationPriority",
        OneOf(&[
            "PRIORITY_UNSPECIFIED",
            "PRIORITY_MIN",
            "PRIORITY_LOW",
            "PRIORITY_DEFAULT",
            "PRIORITY_HIGH",
            "PRIORITY_MAX",
        ]),
    ),
    ("defaultSound", Bool),
    ("defaultVibrateTimings", Bool),
    ("defaultLightSettings", Bool),
    ("vibrateTimings", DurationList),
    ("visibility", OneOf(&["VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"])),
    ("notificationCount", Int),
    ("lightSettings", LIGHT_SETTINGS),
    ("image", Text),
    ("proxy", OneOf(&["PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"])),
]);

const ANDROID: Shape = Object(&[
    ("collapseKey", Text),
    // The reference has capitals, Google's own examples have not; both are taken.
    ("priority", OneOf(&["NORMAL", "HIGH", "normal", "high"])),
    ("ttl", Duration),
    ("restrictedPackageName", Text),
    ("data", Data),
    ("notification", ANDROID_NOTIFICATION),
    ("fcmOptions", Object(&[("analyticsLabel", Text)])),
    ("directBootOk", Bool),
    ("bandwidthConstrainedOk", Bool),
    ("restrictedSatelliteOk", Bool),
]);

const WEBPUSH: Shape = Object(&[
    ("headers", Texts),
    ("data", Data),
    ("notification", Free),
    ("fcmOptions", Object(&[("link", Text), ("analyticsLabel", Text)])),
]);

const APNS: Shape = Object(&[
    ("headers", Texts),
    ("payload", Free),
    ("fcmOptions", Object(&[("analyticsLabel", Text), ("image", Text)])),
    ("liveActivityToken", Text),
]);

const MESSAGE: Shape = Object(&[
    ("data", Data),
    ("notification", NOTIFICATION),
    ("android", ANDROID),
    ("webpush", WEBPUSH),
    ("apns", APNS),
    ("fcmOptions", Object(&[("analyticsLabel", Text)])),
    ("token", Text),
    ("topic", Text),
    ("condition", Text),
]);

const REQUEST: Shape = Object(&[("validateOnly", Bool), ("message", MESSAGE)]);

/// Judges the body of a request; the error is the breach.
pub(super) fn check(body: &[u8]) -> Result<Message, &'static str> {
    let mut request: Value = serde_json::from_slice(body).map_err(|_| "body_malformed")?;
    shape(&REQUEST, &mut request)?;
    let message = request.get("message").ok_or("message_missing")?;
    let targets = ["token", "topic", "condition"].map(|target| message[target].as_str());
    let [Some(token), None, None] = targets else { return Err("target") };
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"_:-.=".contains(&byte);
    if token.is_empty() || token.len() > TOKEN_MAX || !token.bytes().all(is_token) {
        return Err("registration_token");
    }
    check_sizes(message)?;
    let (apns, webpush) = (&message["apns"], &message["webpush"]);
    check_apns_headers(&apns["headers"])?;
    check_webpush_headers(&webpush["headers"])?;
    let shows = [
        &message["notification"],
        &message["android"]["notification"],
        &webpush["notification"],
        &apns["payload"]["aps"]["alert"],
    ];
    let kind = if shows.iter().any(|part| !part.is_null()) { Kind::Alert } else { Kind::Wake };
    let collapse = [
        &message["android"]["collapseKey"],
        &apns["headers"]["apns-collapse-id"],
        &webpush["headers"]["Topic"],
    ];
    let collapse = collapse.iter().find_map(|id| id.as_str()).map(str::to_owned);
    Ok(Message { token: token.to_owned(), kind, collapse })
}

/// Checks a value, and gives its fields their names in camel case: the API takes both forms.
fn shape(shape_of: &Shape, value: &mut Value) -> Result<(), &'static str> {
    let is_right = match shape_of {
        Text => value.is_string(),
        Bool => value.is_boolean(),
        Int => value.is_i64(),
        Number => value.is_number(),
        Duration => is_duration(value),
        Texts => is_list_of_texts(value),
        Data => {
            let Some(data) = value.as_object().filter(|_| is_list_of_texts(value)) else {
                return Err("data_value");
            };
            return if data.keys().any(|key| is_reserved(key)) { Err("data_key") } else { Ok(()) };
        }
        TextList => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
        DurationList => value.as_array().is_some_and(|list| list.iter().all(is_duration)),
        OneOf(names) => value.as_str().is_some_and(|text| names.contains(&text)),
        Free => value.is_object(),
        Object(fields) => {
            let Some(object) = value.as_object_mut() else { return Err("field_type") };
            let given = std::mem::take(object);
            for (name, mut value) in given {
                let name = camel_case(&name);
                let field = fields.iter().find(|(known, _)| *known == name);
                let (_, field) = field.ok_or("field_unknown")?;
                // Null is the same as nothing.
                if !value.is_null() {
                    shape(field, &mut value)?;
                    object.insert(name, value);
                }
            }
            true
        }
    };
    if is_right { Ok(()) } else { Err("field_type") }
}

fn camel_case(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut is_word = false;
    for c in name.chars() {
        match c {
            '_' => is_word = true,
            c if is_word => {
                camel.push(c.to_ascii_uppercase());
                is_word = false;
            }
            c => camel.push(c),
        }
    }
    camel
}

fn is_list_of_texts(value: &Value) -> bool {
    value.as_object().is_some_and(|map| map.values().all(Value::is_string))
}

fn is_reserved(key: &str) -> bool {
    key == "from" || key == "message_type" || key.starts_with("google") || key.starts_with("gcm")
}

fn is_duration(value: &Value) -> bool {
    let Some(number) = value.as_str().and_then(|text| text.strip_suffix('s')) else {
        return false;
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    are_digits(whole)
        && are_digits(part)
        && part.len() <= 9
        && number.parse::<f64>().is_ok_and(|seconds| seconds <= TTL_MAX_S)
}

/// Each platform gets the common part, or its own in that one's place.
fn check_sizes(message: &Value) -> Result<(), &'static str> {
    fn bytes(value: &Value) -> usize {
        match value {
            Value::Null => 0,
            Value::Object(map) => texts(map),
            Value::Array(list) => list.iter().map(bytes).sum(),
            Value::String(text) => text.len(),
            other => other.to_string().len(),
        }
    }
    fn texts(map: &Map<String, Value>) -> usize {
        map.iter().map(|(key, value)| key.len() + bytes(value)).sum()
    }
    let common = |own: &Value| {
        let data = if own["data"].is_null() { &message["data"] } else { &own["data"] };
        bytes(data) + bytes(&message["notification"])
    };
    let android = common(&message["android"]) + bytes(&message["android"]["notification"]);
    let webpush = common(&message["webpush"]) + bytes(&message["webpush"]["notification"]);
    let apns = common(&Value::Null) + bytes(&message["apns"]["payload"]);
    if [android, webpush, apns].iter().any(|bytes| *bytes > PAYLOAD_MAX) {
        return Err("message_size");
    }
    Ok(())
}

fn check_apns_headers(headers: &Value) -> Result<(), &'static str> {
    let header = |name: &str| headers[name].as_str();
    let is_right = header("apns-priority").is_none_or(|text| ["1", "5", "10"].contains(&text))
        && header("apns-collapse-id").is_none_or(|id| id.len() <= 64)
        && header("apns-expiration").is_none_or(|text| text.parse::<u32>().is_ok())
        && header("apns-push-type").is_none_or(|text| ["alert", "background"].contains(&text));
    if is_right { Ok(()) } else { Err("apns_headers") }
}

fn check_webpush_headers(headers: &Value) -> Result<(), &'static str> {
    let header = |name: &str| headers[name].as_str();
    let urgencies = ["very-low", "low", "normal", "high"];
    let is_right = header("TTL").is_none_or(|text| text.parse::<u32>().is_ok())
        && header("Urgency").is_none_or(|text| urgencies.contains(&text));
    if is_right { Ok(()) } else { Err("webpush_headers") }
}
