//! The layout of any pod, the text of hostile ones, and what a browser makes of them.
mod browser;
mod layout;
mod order;
mod pods;
mod text;
