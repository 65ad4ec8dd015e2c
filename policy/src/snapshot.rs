//! The snapshot: the immutable, indexed policy that a replica decides from.
//!
//! Cloning is O(1) (persistent maps), and a change costs O(log n) in the number of objects: one
//! changed window among 100,000 never rebuilds the rest. Uniqueness (names, keys, ports) is settled
//! before objects come here (`tidegate_crds::assemble`); should two objects claim one value all the
//! same, the one that has it keeps it.

use std::sync::Arc;

use crate::model::{KeyBlob, Label, Login, LoginUser, Mesh, ObjectKey, Terminal, Window};

#[derive(Clone, Debug)]
pub struct Snapshot {
    mesh: Arc<Mesh>,
}

impl Snapshot {
    /// An empty policy: nothing is admitted.
    pub fn new(mesh: Mesh) -> Self {
        Self { mesh: Arc::new(mesh) }
    }

    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Replaces the Mesh's settings; logins keep their form, since the namespace may not change.
    pub fn set_mesh(&mut self, mesh: Mesh) {
        self.mesh = Arc::new(mesh);
    }

    pub fn put_user(&mut self, _user: LoginUser) {
        unimplemented!()
    }

    pub fn remove_user(&mut self, _key: &ObjectKey) {
        unimplemented!()
    }

    pub fn put_terminal(&mut self, _terminal: Terminal) {
        unimplemented!()
    }

    pub fn remove_terminal(&mut self, _key: &ObjectKey) {
        unimplemented!()
    }

    pub fn put_window(&mut self, _window: Window) {
        unimplemented!()
    }

    pub fn remove_window(&mut self, _key: &ObjectKey) {
        unimplemented!()
    }

    pub fn user(&self, _login: &Login) -> Option<&Arc<LoginUser>> {
        unimplemented!()
    }

    pub fn user_by_key(&self, _key: &KeyBlob) -> Option<&Arc<LoginUser>> {
        unimplemented!()
    }

    /// By its name, which is unique in the mesh.
    pub fn terminal(&self, _name: &Label) -> Option<&Arc<Terminal>> {
        unimplemented!()
    }

    pub fn terminal_by_key(&self, _key: &KeyBlob) -> Option<&Arc<Terminal>> {
        unimplemented!()
    }

    /// The terminal that declares this listenPort on one of its services.
    pub fn terminal_by_listen_port(&self, _port: u16) -> Option<&Arc<Terminal>> {
        unimplemented!()
    }

    pub fn window(&self, _key: &ObjectKey) -> Option<&Arc<Window>> {
        unimplemented!()
    }

    pub fn users(&self) -> impl Iterator<Item = &Arc<LoginUser>> {
        std::iter::empty()
    }

    pub fn terminals(&self) -> impl Iterator<Item = &Arc<Terminal>> {
        std::iter::empty()
    }

    pub fn windows(&self) -> impl Iterator<Item = &Arc<Window>> {
        std::iter::empty()
    }

    /// The windows that name this user, by name or group, suspended or not, without duplicates, in
    /// the order of their age.
    pub fn windows_of_user(&self, _user: &LoginUser) -> Vec<&Arc<Window>> {
        unimplemented!()
    }

    /// The windows that select this terminal, by name or selector, suspended or not.
    pub fn windows_of_terminal(&self, _terminal: &Terminal) -> Vec<&Arc<Window>> {
        unimplemented!()
    }

    /// The terminals that `window` selects.
    pub fn terminals_of_window(&self, _window: &Window) -> Vec<&Arc<Terminal>> {
        unimplemented!()
    }
}
