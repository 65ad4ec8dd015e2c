//! Simulated clients: many connections that really speak the protocol, from one process.

use std::sync::{Arc, LazyLock};

use tidegate_ssh_client::driver::{Connection, Serve};
use tidegate_ssh_client::{Key, Offer};

use crate::relays::{KEY_EXCHANGE, Login};
use crate::service::GREETING;
use crate::transfer::CIPHERS;

/// What both relays have.
static OFFER: LazyLock<Arc<Offer>> = LazyLock::new(|| {
    let ciphers = [vec![CIPHERS[0]], vec![CIPHERS[0]]];
    Arc::new(Offer { kex: vec![KEY_EXCHANGE], ciphers, ..Offer::default() })
});

pub fn key(login: &Login) -> Key {
    Key::read(&login.key)
}

/// A connection that is logged in and greets on every channel that is opened to it.
pub async fn log_in(port: u16, user: &str, key: Key) -> Connection {
    let login =
        Connection::login(port, Arc::clone(&OFFER), user, key, Serve::Greeting(GREETING)).await;
    login.unwrap_or_else(|error| panic!("{user} was not let in: {error}"))
}

/// Opens a channel to a service that greets, takes the greeting and lets go.
pub async fn open(client: &Connection, (host, port): &(String, u16)) -> Result<(), String> {
    match client.open(host, u32::from(*port)).await {
        Ok(greeting) if greeting == [GREETING] => Ok(()),
        Ok(greeting) => Err(format!("{greeting:?}")),
        Err(error) => Err(error.to_string()),
    }
}
