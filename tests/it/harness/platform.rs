//! The sample platform as a neighbour of the app under test.
