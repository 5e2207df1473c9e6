//! The edge without its sockets: everything here is a function of what is passed in, time and chance included.

pub mod answer;
pub mod body;
pub mod call;
pub mod decide;
pub mod delivered;
pub mod gather;
pub mod keys;
pub mod limiter;
pub mod mail;
pub mod memory;
pub mod parking;
pub mod route;
pub mod sabotage;
pub mod seal;
pub mod seen;
pub mod tickets;
pub mod writes;

#[cfg(test)]
mod fixture;
