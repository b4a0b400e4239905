//! A browser without a window, told what to do through two pipes, in Chrome's DevTools protocol.
//!
//! Each message is a JSON object with a zero byte behind it; an answer has the number of its question.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::manager::wait_until;

/// A browser with one page.
pub struct Browser {
    child: Child,
    asks: ChildStdin,
    tells: BufReader<ChildStdout>,
    profile: PathBuf,
    asked: u64,
    page: Value,
}

impl Browser {
    /// One whose files lie in this folder, and which shows nothing yet.
    pub fn start(folder: &Path) -> Self {
        let profile = folder.join("profile");
        // It expects the pipes at descriptors 3 and 4.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null", "sh", "chromium"]);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]);
        command.arg("--disable-background-networking");
        command.arg(format!("--user-data-dir={}", profile.display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("chromium is installed");
        let (asks, tells) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let tells = BufReader::new(tells);
        let mut browser = Self { child, asks, tells, profile, asked: 0, page: Value::Null };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        browser.page = browser.ask("Target.attachToTarget", attach)["sessionId"].clone();
        browser
    }

    /// What this method of the protocol answers.
    pub fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.asked += 1;
        let mut question = json!({ "id": self.asked, "method": method, "params": parameters });
        if !self.page.is_null() {
            question["sessionId"] = self.page.clone();
        }
        self.asks.write_all(format!("{question}\0").as_bytes()).unwrap();
        loop {
            let mut message = Vec::new();
            self.tells.read_until(0, &mut message).unwrap();
            assert_eq!(message.pop(), Some(0), "the browser has gone");
            let message: Value = serde_json::from_slice(&message).unwrap();
            if message["id"] == self.asked {
                assert!(message["error"].is_null(), "{message}");
                return message["result"].clone();
            }
        }
    }

    /// Opens a page.
    pub fn open(&mut self, address: &str) {
        self.ask("Page.navigate", json!({ "url": address }));
    }

    /// What this expression of JavaScript comes to in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let parameters =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.ask("Runtime.evaluate", parameters);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until this expression is true in the page.
    #[track_caller]
    pub fn until(&mut self, expression: &str) {
        // What it names may not be there yet.
        let whole =
            format!("(() => {{ try {{ return {expression} }} catch {{ return false }} }})()");
        wait_until(expression, || self.value(&whole) == true);
    }

    /// Presses a key that does something, such as `Tab`.
    pub fn press(&mut self, key: &str) {
        for kind in ["rawKeyDown", "keyUp"] {
            let code = if key == "Tab" { 9 } else { 13 };
            let mut press = json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code });
            if kind == "rawKeyDown" && key == "Enter" {
                press["type"] = json!("keyDown");
                press["text"] = json!("\r");
            }
            self.ask("Input.dispatchKeyEvent", press);
        }
    }

    /// Types this.
    pub fn write(&mut self, text: &str) {
        self.ask("Input.insertText", json!({ "text": text }));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.profile);
    }
}
