//! The pod: its life, and what carries it out.
mod state;
