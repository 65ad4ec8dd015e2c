//! The page that says what this is. No scripts, no styles, nothing from elsewhere.

pub(super) const HTML: &str = r#"<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Tidegate relay</title></head>
<body>
<h1>This is a Tidegate relay</h1>
<p>Support staff reach customers' machines through it, over SSH, inside declared support windows.
There is nothing to see for a browser.</p>
<p>Connect with an SSH client to this host and port:</p>
<pre>ssh -J LOGIN@RELAY:PORT USER@TERMINAL</pre>
<p>Where only the web gets through, by a WebSocket:</p>
<pre>ssh -o ProxyCommand='websocat --binary --protocol ssh.tidegate.dev ws://RELAY:PORT/tidegate' LOGIN@RELAY</pre>
<p>Whoever runs this relay tells you your login, the relay's host key and the names of terminals.</p>
</body>
</html>
"#;
