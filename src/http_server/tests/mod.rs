//! The server over real sockets, with handlers that wait for the test. What it does to requests that
//! are not detached is tested with the API (`ingress::http`).

mod bodies;
mod detached;
mod ends;
mod site;
mod streams;
