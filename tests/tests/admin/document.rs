//! The OpenAPI document that central serves, as the judge of what it answers.
//!
//! The checks go by the document and the document by the checks: an operation that no check calls fails the test, and so
//! does an answer that the document does not describe.

use std::collections::BTreeSet;

use carillon_tests::admin::Answer;
use serde_json::Value;

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

#[derive(Debug)]
pub(crate) struct Document {
    json: Value,
    pub(crate) operations: Vec<Operation>,
}

#[derive(Clone, Debug)]
pub(crate) struct Operation {
    /// `POST /v1/apps`, with the names of parameters in braces.
    pub(crate) call: String,
    pub(crate) method: String,
    pub(crate) path: String,
    /// Whether it asks for the token.
    pub(crate) secured: bool,
    /// The content type of the body and its schema.
    pub(crate) request: Option<(String, Value)>,
    json: Value,
}

impl Operation {
    /// Whether it changes what central holds.
    pub(crate) fn writes(&self) -> bool {
        let asks = [":preview", ":explain", ":compare", ":complete", "/test"];
        self.method != "GET" && !asks.iter().any(|action| self.path.ends_with(action))
    }
}

impl Document {
    /// Reads it, and checks what holds for every OpenAPI document.
    pub(crate) fn new(json: Value) -> Document {
        let mut operations = Vec::new();
        let mut ids = BTreeSet::new();
        for (path, item) in json["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("a path") {
                let method = method.to_uppercase();
                let call = format!("{method} {path}");
                let id = operation["operationId"].as_str().expect("an operationId");
                assert!(ids.insert(id.to_owned()), "{call}: a second operation {id:?}");
                check_parameters(&call, path, operation);
                operations.push(Operation {
                    call,
                    method,
                    path: path.clone(),
                    secured: operation["security"].as_array().is_none_or(|s| s.is_empty()),
                    request: request(operation),
                    json: operation.clone(),
                });
            }
        }
        assert!(json["security"].as_array().is_some_and(|s| !s.is_empty()), "a token is asked for");
        // `security` of an operation that needs none holds one empty requirement.
        for operation in &mut operations {
            operation.secured &= operation.path.starts_with("/v1/");
        }
        Document { json, operations }
    }

    /// # Panics
    /// If the document has none such: a check is left over, or misspelt.
    #[track_caller]
    pub(crate) fn operation(&self, call: &str) -> Operation {
        let found = self.operations.iter().find(|operation| operation.call == call);
        found.unwrap_or_else(|| panic!("the document has no operation {call}")).clone()
    }

    /// Methods that a path of the document does not have.
    pub(crate) fn other_methods(&self, path: &str) -> Vec<&'static str> {
        let has =
            |method: &str| self.operations.iter().any(|o| o.path == path && o.method == method);
        METHODS.into_iter().filter(|method| !has(method)).collect()
    }

    /// # Panics
    /// Unless the document says that this operation may answer so, to the last member.
    #[track_caller]
    pub(crate) fn check_answer(&self, operation: &Operation, answer: &Answer) {
        let call = &operation.call;
        let responses = &operation.json["responses"];
        let status = answer.status.to_string();
        let response = match &responses[&status] {
            Value::Null => &responses["default"],
            response => response,
        };
        assert!(response.is_object(), "{call}: {status} is not documented: {answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store", "{call}: {answer:?}");
        let Some(content) = response["content"].as_object() else {
            assert!(answer.body.is_empty(), "{call}: a body that is not documented: {answer:?}");
            return;
        };
        let kind = answer.header("content-type").split(';').next().unwrap_or_default();
        let media = content.get(kind);
        let media =
            media.unwrap_or_else(|| panic!("{call}: {kind:?} is not documented: {answer:?}"));
        match kind {
            "application/json" | "application/problem+json" => {
                let json = serde_json::from_slice(&answer.body).expect("JSON");
                self.check_shape(call, &media["schema"], &json);
            }
            "application/x-ndjson" => {
                for line in answer.body.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                    let json = serde_json::from_slice(line).expect("JSON");
                    self.check_shape(call, &media["schema"], &json);
                }
            }
            _ => assert!(!answer.body.is_empty(), "{call}: {answer:?}"),
        }
    }

    #[track_caller]
    fn check_shape(&self, call: &str, schema: &Value, json: &Value) {
        if let Err(what) = self.conforms(schema, json) {
            panic!("{call}: {what} in {json}");
        }
    }

    /// A schema behind its reference.
    pub(crate) fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            None => schema,
            Some(reference) => {
                let pointer = reference.trim_start_matches('#');
                self.json.pointer(pointer).unwrap_or_else(|| panic!("{reference} is nowhere"))
            }
        }
    }

    /// Whether a value of this kind may stand where the schema does.
    pub(crate) fn may_be(&self, schema: &Value, json: &Value) -> bool {
        self.conforms(schema, json).is_ok()
    }

    /// Whether `json` is what `schema` describes. An object has no members but those named; problems may have further.
    fn conforms(&self, schema: &Value, json: &Value) -> Result<(), String> {
        let schema = self.resolve(schema);
        if let Some(choices) = schema["oneOf"].as_array() {
            let fits = choices.iter().filter(|choice| self.conforms(choice, json).is_ok()).count();
            return (fits == 1).then_some(()).ok_or(format!("{json} fits {fits} of {choices:?}"));
        }
        if let Some(allowed) = schema["enum"].as_array() {
            return allowed
                .contains(json)
                .then_some(())
                .ok_or(format!("{json} not in {allowed:?}"));
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(kind) => vec![kind],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            // No type: anything.
            _ => return Ok(()),
        };
        if !kinds.contains(&kind_of(json)) {
            return Err(format!("{json} is not of {kinds:?}"));
        }
        if let Some(items) = json.as_array() {
            return items.iter().try_for_each(|item| self.conforms(&schema["items"], item));
        }
        let (Some(members), Some(named)) = (json.as_object(), schema["properties"].as_object())
        else {
            return Ok(());
        };
        let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
        if let Some(name) =
            required.iter().find(|name| json.get(name.as_str().unwrap_or("")).is_none())
        {
            return Err(format!("{name} is missing"));
        }
        let is_problem = named.contains_key("title") && named.contains_key("detail");
        for (name, value) in members {
            match named.get(name) {
                Some(schema) => self.conforms(schema, value).map_err(|e| format!("{name}: {e}"))?,
                None if is_problem => {}
                None => return Err(format!("{name:?} is not documented")),
            }
        }
        Ok(())
    }
}

fn kind_of(json: &Value) -> &'static str {
    match json {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn request(operation: &Value) -> Option<(String, Value)> {
    let content = operation["requestBody"]["content"].as_object()?;
    let (kind, media) = content.iter().next().expect("a body has a type");
    Some((kind.clone(), media["schema"].clone()))
}

/// Every name in the path is a parameter of the path, and no other is.
fn check_parameters(call: &str, path: &str, operation: &Value) {
    let named: BTreeSet<&str> =
        path.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
    let mut of_path = BTreeSet::new();
    for parameter in operation["parameters"].as_array().map_or(&[][..], Vec::as_slice) {
        let name = parameter["name"].as_str().expect("a name");
        match parameter["in"].as_str() {
            Some("path") => assert!(of_path.insert(name), "{call}: {name} twice"),
            Some("query" | "header") => {
                assert_ne!(parameter["required"], Value::Bool(true), "{call}: {name}");
            }
            other => panic!("{call}: {name} in {other:?}"),
        }
    }
    assert_eq!(of_path, named, "{call}");
}
