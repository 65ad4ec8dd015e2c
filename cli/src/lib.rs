//! `kubectl-tidegate`: what support desks and platform teams ask of a mesh.
