//! Bytes that no honest peer or client sends, at every layer of either transport and on the HTTP listener, against the
//! real program. While they come, and afterwards, it answers whoever asks properly; it panics nowhere, and its memory
//! grows by no more than [`program::MOST_GROWTH`].

mod support;

#[path = "hostile/after_noise.rs"]
mod after_noise;
#[path = "hostile/before_noise.rs"]
mod before_noise;
#[path = "hostile/dialer.rs"]
mod dialer;
#[path = "hostile/http.rs"]
mod http;
#[path = "hostile/program.rs"]
mod program;
#[path = "hostile/protocols.rs"]
mod protocols;
#[path = "hostile/requests.rs"]
mod requests;
#[path = "hostile/session.rs"]
mod session;
#[path = "hostile/websocket.rs"]
mod websocket;
