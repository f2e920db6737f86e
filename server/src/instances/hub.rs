//! Where the websockets of an operation are brought together: each has a secret by which a client connects it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::ws::WebSocket;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot::{Receiver, Sender, channel};

use crate::operations::{Sockets, random_id};
use crate::reply::Problem;

/// Websockets that are expected.
pub(super) struct Hub {
    /// By secret. Each is taken once.
    open: Mutex<HashMap<String, Sender<WebSocket>>>,
    /// By name.
    expected: Mutex<HashMap<&'static str, Receiver<WebSocket>>>,
}

impl Hub {
    /// Expects some, and says what the secrets are.
    pub(super) fn new(names: &[&'static str]) -> Result<(Map<String, Value>, Arc<Self>), Problem> {
        let (mut open, mut expected, mut secrets) = (HashMap::new(), HashMap::new(), Map::new());
        for name in names {
            // Two of them are 244 bits that nobody can guess.
            let secret = (random_id()? + &random_id()?).replace('-', "");
            let (sender, receiver) = channel();
            secrets.insert((*name).to_owned(), json!(secret));
            open.insert(secret, sender);
            expected.insert(*name, receiver);
        }
        let hub = Self {
            open: Mutex::new(open),
            expected: Mutex::new(expected),
        };
        Ok((secrets, Arc::new(hub)))
    }

    /// One of them, once a client has connected it. It is not waited for when it was taken before.
    pub(super) async fn get(&self, name: &str) -> Option<WebSocket> {
        let receiver = self
            .expected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name)?;
        receiver.await.ok()
    }

    /// All of these, in this order.
    pub(super) async fn gather(&self, names: &[&str]) -> Vec<WebSocket> {
        let mut sockets = Vec::new();
        for name in names {
            sockets.extend(self.get(name).await);
        }
        sockets
    }
}

impl Sockets for Hub {
    fn known(&self, secret: &str) -> bool {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(secret)
    }

    fn take(&self, secret: &str, socket: WebSocket) {
        let sender = self
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(secret);
        if let Some(sender) = sender {
            let _ = sender.send(socket);
        }
    }
}
