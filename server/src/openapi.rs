//! `/1.0/openapi.json`: what the API has, for tools that read OpenAPI 3.0. A test holds it against the routes.

use serde_json::{Map, Value, json};

use crate::reply::{Answer, Reply};

/// What a request has as its body.
#[derive(Clone, Copy)]
enum Body {
    /// Nothing.
    No,
    /// A JSON object with some of these fields.
    Json(&'static [(&'static str, &'static str)]),
    /// Bytes.
    Bytes,
}
use Body::{Bytes, Json, No};

const INSTANCE: Body = Json(&[
    ("architecture", "string"),
    ("config", "object"),
    ("description", "string"),
    ("devices", "object"),
    ("ephemeral", "boolean"),
    ("name", "string"),
    ("profiles", "array"),
    ("restore", "string"),
    ("source", "object"),
    ("type", "string"),
]);
const NAMED: Body = Json(&[("name", "string"), ("migration", "boolean")]);
const PROFILE: Body = Json(&[
    ("config", "object"),
    ("description", "string"),
    ("devices", "object"),
    ("name", "string"),
]);
const NETWORK: Body = Json(&[
    ("config", "object"),
    ("description", "string"),
    ("name", "string"),
    ("type", "string"),
]);
const FORWARD: Body = Json(&[
    ("config", "object"),
    ("description", "string"),
    ("listen_address", "string"),
    ("ports", "array"),
]);
const ACL: Body = Json(&[
    ("config", "object"),
    ("description", "string"),
    ("egress", "array"),
    ("ingress", "array"),
    ("name", "string"),
]);
const ALIAS: Body = Json(&[
    ("description", "string"),
    ("name", "string"),
    ("target", "string"),
]);
const IMAGE: Body = Json(&[
    ("auto_update", "boolean"),
    ("properties", "object"),
    ("public", "boolean"),
]);
const PROJECT: Body = Json(&[
    ("config", "object"),
    ("description", "string"),
    ("name", "string"),
]);
const CERTIFICATE: Body = Json(&[
    ("certificate", "string"),
    ("name", "string"),
    ("password", "string"),
    ("restricted", "boolean"),
    ("token", "boolean"),
    ("trust_token", "string"),
    ("type", "string"),
]);

/// Method, path and what it does, of all requests. `containers` are `instances` by their older name.
#[rustfmt::skip]
const REQUESTS: &[(&str, &str, &str, Body)] = &[
    ("get", "/", "The versions of the API", No),
    ("get", "/1.0", "The server", No),
    ("get", "/1.0/openapi.json", "This description", No),
    ("get", "/1.0/events", "Events, over a websocket", No),
    ("get", "/1.0/operations", "What goes on", No),
    ("get", "/1.0/operations/{id}", "An operation", No),
    ("delete", "/1.0/operations/{id}", "End an operation early", No),
    ("get", "/1.0/operations/{id}/wait", "An operation, once it is over", No),
    ("get", "/1.0/operations/{id}/websocket", "Streams of an operation, over websockets", No),
    ("get", "/1.0/instances", "Instances", No),
    ("post", "/1.0/instances", "A new instance, of an image, another instance or an archive", INSTANCE),
    ("get", "/1.0/instances/{name}", "An instance", No),
    ("put", "/1.0/instances/{name}", "Configure an instance anew, or restore a snapshot", INSTANCE),
    ("patch", "/1.0/instances/{name}", "Add to an instance's configuration", INSTANCE),
    ("post", "/1.0/instances/{name}", "Rename an instance", NAMED),
    ("delete", "/1.0/instances/{name}", "Delete an instance", No),
    ("get", "/1.0/instances/{name}/state", "What an instance uses", No),
    ("put", "/1.0/instances/{name}/state", "Start, stop, restart, freeze, unfreeze", Json(&[("action", "string"), ("force", "boolean"), ("stateful", "boolean"), ("timeout", "integer")])),
    ("post", "/1.0/instances/{name}/exec", "Run a program", Json(&[("command", "array"), ("cwd", "string"), ("environment", "object"), ("group", "integer"), ("height", "integer"), ("interactive", "boolean"), ("record-output", "boolean"), ("user", "integer"), ("wait-for-websocket", "boolean"), ("width", "integer")])),
    ("get", "/1.0/instances/{name}/console", "What the console said", No),
    ("post", "/1.0/instances/{name}/console", "The console, over websockets", Json(&[("height", "integer"), ("type", "string"), ("width", "integer")])),
    ("get", "/1.0/instances/{name}/files", "A file, folder or link inside (?path=)", No),
    ("post", "/1.0/instances/{name}/files", "Write a file, folder or link inside (?path=)", Bytes),
    ("delete", "/1.0/instances/{name}/files", "Remove a file inside (?path=)", No),
    ("get", "/1.0/instances/{name}/snapshots", "Snapshots", No),
    ("post", "/1.0/instances/{name}/snapshots", "Take a snapshot", Json(&[("expires_at", "string"), ("name", "string"), ("stateful", "boolean")])),
    ("get", "/1.0/instances/{name}/snapshots/{snapshot}", "A snapshot", No),
    ("delete", "/1.0/instances/{name}/snapshots/{snapshot}", "Delete a snapshot", No),
    ("get", "/1.0/instances/{name}/backups", "Archives of an instance", No),
    ("post", "/1.0/instances/{name}/backups", "Make an archive", Json(&[("expires_at", "string"), ("name", "string"), ("optimized_storage", "boolean")])),
    ("get", "/1.0/instances/{name}/backups/{backup}", "An archive's description", No),
    ("post", "/1.0/instances/{name}/backups/{backup}", "Rename an archive", NAMED),
    ("delete", "/1.0/instances/{name}/backups/{backup}", "Delete an archive", No),
    ("get", "/1.0/instances/{name}/backups/{backup}/export", "An archive", No),
    ("get", "/1.0/instances/{name}/logs", "Logs", No),
    ("get", "/1.0/instances/{name}/logs/{file}", "A log", No),
    ("delete", "/1.0/instances/{name}/logs/{file}", "Delete a log", No),
    ("get", "/1.0/images", "Images", No),
    ("post", "/1.0/images", "Send an image, or publish an instance", Json(&[("aliases", "array"), ("properties", "object"), ("public", "boolean"), ("source", "object")])),
    ("get", "/1.0/images/aliases", "Aliases", No),
    ("post", "/1.0/images/aliases", "A new alias", ALIAS),
    ("get", "/1.0/images/aliases/{alias}", "An alias", No),
    ("put", "/1.0/images/aliases/{alias}", "Change an alias", ALIAS),
    ("patch", "/1.0/images/aliases/{alias}", "Change an alias in part", ALIAS),
    ("post", "/1.0/images/aliases/{alias}", "Rename an alias", ALIAS),
    ("delete", "/1.0/images/aliases/{alias}", "Delete an alias", No),
    ("get", "/1.0/images/{fingerprint}", "An image", No),
    ("put", "/1.0/images/{fingerprint}", "Say other things of an image", IMAGE),
    ("patch", "/1.0/images/{fingerprint}", "Say more of an image", IMAGE),
    ("delete", "/1.0/images/{fingerprint}", "Delete an image", No),
    ("get", "/1.0/images/{fingerprint}/export", "An image as an archive", No),
    ("get", "/1.0/profiles", "Profiles", No),
    ("post", "/1.0/profiles", "A new profile", PROFILE),
    ("get", "/1.0/profiles/{name}", "A profile", No),
    ("put", "/1.0/profiles/{name}", "Change a profile", PROFILE),
    ("patch", "/1.0/profiles/{name}", "Add to a profile", PROFILE),
    ("post", "/1.0/profiles/{name}", "Rename a profile", NAMED),
    ("delete", "/1.0/profiles/{name}", "Delete a profile", No),
    ("get", "/1.0/networks", "Networks", No),
    ("post", "/1.0/networks", "A new network", NETWORK),
    ("get", "/1.0/networks/{name}", "A network", No),
    ("put", "/1.0/networks/{name}", "Change a network", NETWORK),
    ("patch", "/1.0/networks/{name}", "Change a network in part", NETWORK),
    ("post", "/1.0/networks/{name}", "Refused: networks keep their names", No),
    ("delete", "/1.0/networks/{name}", "Delete a network", No),
    ("get", "/1.0/networks/{name}/state", "A network's link on the host", No),
    ("get", "/1.0/networks/{name}/leases", "Addresses of instances", No),
    ("get", "/1.0/networks/{name}/forwards", "Addresses of the host that lead to instances", No),
    ("post", "/1.0/networks/{name}/forwards", "A new one", FORWARD),
    ("get", "/1.0/networks/{name}/forwards/{address}", "One of them", No),
    ("put", "/1.0/networks/{name}/forwards/{address}", "Change its ports", FORWARD),
    ("delete", "/1.0/networks/{name}/forwards/{address}", "Delete it", No),
    ("get", "/1.0/network-acls", "Firewalls of instances, which have their names", No),
    ("post", "/1.0/network-acls", "Give an instance's firewall its first rules", ACL),
    ("get", "/1.0/network-acls/{name}", "An instance's firewall", No),
    ("put", "/1.0/network-acls/{name}", "Change its rules", ACL),
    ("post", "/1.0/network-acls/{name}", "Refused: an ACL has the name of its instance", No),
    ("delete", "/1.0/network-acls/{name}", "Remove its rules", No),
    ("get", "/1.0/certificates", "Clients that are trusted", No),
    ("post", "/1.0/certificates", "Trust a client, or be trusted by a token", CERTIFICATE),
    ("get", "/1.0/certificates/{fingerprint}", "A client", No),
    ("put", "/1.0/certificates/{fingerprint}", "Rename a client", CERTIFICATE),
    ("patch", "/1.0/certificates/{fingerprint}", "Rename a client", CERTIFICATE),
    ("delete", "/1.0/certificates/{fingerprint}", "Trust a client no more", No),
    ("get", "/1.0/metrics", "What instances use, as OpenMetrics", No),
    ("get", "/1.0/resources", "What the host has", No),
    ("get", "/1.0/warnings", "Warnings: none", No),
    ("get", "/1.0/cluster", "The cluster: none", No),
    ("put", "/1.0/cluster", "Refused: there is no cluster", No),
    ("get", "/1.0/projects", "Projects", No),
    ("post", "/1.0/projects", "A new project", PROJECT),
    ("get", "/1.0/projects/{name}", "A project", No),
    ("put", "/1.0/projects/{name}", "Give a project other limits", PROJECT),
    ("patch", "/1.0/projects/{name}", "Give a project more limits", PROJECT),
    ("post", "/1.0/projects/{name}", "Refused: projects keep their names", No),
    ("delete", "/1.0/projects/{name}", "Delete a project", No),
    ("get", "/1.0/projects/{name}/state", "What a project uses", No),
    ("get", "/1.0/storage-pools", "Storage pools", No),
    ("get", "/1.0/storage-pools/{name}", "A storage pool", No),
    ("get", "/1.0/storage-pools/{name}/resources", "How full it is", No),
    ("get", "/1.0/storage-pools/{name}/volumes", "Volumes: none", No),
];

/// `GET /1.0/openapi.json`: the one answer without an envelope that is JSON.
pub(crate) async fn get() -> Answer {
    Ok(Reply::Raw(
        "application/json",
        Vec::new(),
        description().to_string().into(),
    ))
}

fn description() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for (method, path, summary, body) in REQUESTS {
        let entry = paths.entry((*path).to_owned()).or_insert_with(|| json!({}));
        entry[*method] = operation(path, summary, *body);
    }
    json!({
        "openapi": "3.0.3",
        "info": { "title": "condo-server: LXD's REST API 1.0, its core", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
    })
}

fn operation(path: &str, summary: &str, body: Body) -> Value {
    let names = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = names
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    let more: &[&str] = if path.ends_with("/files") {
        &["path", "project"]
    } else {
        &["filter", "project", "recursion"]
    };
    parameters.extend(
        more.iter()
            .map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string" } })),
    );
    let mut operation = json!({
        "summary": summary, "parameters": parameters,
        "responses": {
            "2XX": { "description": "Done, begun, or what was asked for" },
            "4XX": { "description": "An error that says what is wrong, and what would be right" },
        },
    });
    let content = match body {
        No => return operation,
        Bytes => {
            json!({ "application/octet-stream": { "schema": { "type": "string", "format": "binary" } } })
        }
        Json(fields) => {
            let fields: Map<String, Value> = fields
                .iter()
                .map(|(name, kind)| {
                    let schema = if *kind == "array" {
                        json!({ "type": kind, "items": {} })
                    } else {
                        json!({ "type": kind })
                    };
                    ((*name).to_owned(), schema)
                })
                .collect();
            json!({ "application/json": { "schema": { "type": "object", "properties": fields } } })
        }
    };
    operation["requestBody"] = json!({ "content": content });
    operation
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Paths and methods as `routes.rs` has them.
    fn routes() -> BTreeSet<(String, String)> {
        let source = include_str!("routes.rs");
        let mut found = BTreeSet::new();
        for route in source.split(".route(").skip(1) {
            // Its arguments: up to where the brackets close.
            let mut depth = 1;
            let end = route.find(|c| {
                depth += match c {
                    '(' => 1,
                    ')' => -1,
                    _ => 0,
                };
                depth == 0
            });
            let arguments = &route[..end.unwrap_or(route.len())];
            let path = arguments.split('"').nth(1).unwrap_or_default();
            let path = match path {
                _ if path.starts_with("/1.0") => path.to_owned(),
                "/" if arguments.contains("versions") => path.to_owned(),
                "/" => "/1.0/instances".to_owned(),
                below => format!("/1.0/instances{below}"),
            };
            for method in ["get", "put", "post", "patch", "delete"] {
                let is_there = arguments.match_indices(&format!("{method}(")).any(|(at, _)| {
                    !arguments[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                });
                let handles = is_there || arguments.contains(&format!(" {method}("));
                if handles {
                    found.insert((method.to_owned(), path.clone()));
                }
            }
        }
        let dense: String = source.split_whitespace().collect();
        if dense.contains("letall=get(images::list).post(images::create)") {
            found.insert(("get".to_owned(), "/1.0/images".to_owned()));
            found.insert(("post".to_owned(), "/1.0/images".to_owned()));
        }
        found.retain(|(_, path)| !path.contains('*'));
        found
    }

    #[test]
    fn the_description_has_all_routes_and_no_others() {
        let described: BTreeSet<_> = REQUESTS
            .iter()
            .map(|(method, path, ..)| ((*method).to_owned(), (*path).to_owned()))
            .collect();
        assert_eq!(described.len(), REQUESTS.len(), "none comes twice");
        let routes = routes();
        let missing: Vec<_> = routes.difference(&described).collect();
        let gone: Vec<_> = described.difference(&routes).collect();
        assert!(
            missing.is_empty() && gone.is_empty(),
            "not described: {missing:?}; not there: {gone:?}"
        );
    }

    #[test]
    fn bodies_have_schemas() {
        let all = description();
        let create = &all["paths"]["/1.0/instances"]["post"];
        let fields = &create["requestBody"]["content"]["application/json"]["schema"]["properties"];
        assert_eq!(fields["ephemeral"]["type"], "boolean");
        assert_eq!(
            all["paths"]["/1.0/networks/{name}/state"]["get"]["parameters"][0]["name"],
            "name"
        );
    }
}
