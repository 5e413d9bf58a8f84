// The live stream, read with fetch, because EventSource cannot send a token and hides why it fails.
//
// `tell` gets (event, data); `state` gets live, lost, ended or denied. After a loss it connects again
// by itself, with growing pauses; a stream that is silent for SILENCE counts as lost.

const SILENCE = 3000;
const PAUSE = 400;
const PAUSE_MAX = 5000;

export class Stream {
  constructor(tell, state) {
    this.tell = tell;
    this.state = state;
    this.token = sessionStorage.getItem("token") || "";
    this.running = false;
  }

  use(token) {
    this.token = token;
    sessionStorage.setItem("token", token);
  }

  async run() {
    if (this.running) return;
    this.running = true;
    let pause = PAUSE;
    while (this.running) {
      try {
        const heard = await this.once();
        if (heard === "denied") {
          this.running = false;
          this.state("denied");
          return;
        }
        if (heard) pause = PAUSE;
      } catch { /* the state below says so */ }
      this.state("lost");
      await new Promise((go) => setTimeout(go, pause));
      pause = Math.min(PAUSE_MAX, pause * 1.6);
    }
  }

  // One connection, until it ends. Returns whether anything was heard.
  async once() {
    const stop = new AbortController();
    let timer = setTimeout(() => stop.abort(), SILENCE);
    const alive = () => { clearTimeout(timer); timer = setTimeout(() => stop.abort(), SILENCE); };
    let heard = false;
    try {
      const headers = this.token ? { Authorization: `Bearer ${this.token}` } : {};
      const answer = await fetch("/api/events", { headers, signal: stop.signal, cache: "no-store" });
      if (answer.status === 401) return "denied";
      if (!answer.ok) return false;
      this.state("live");
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return heard;
        alive();
        heard = true;
        rest = this.take(rest + value);
      }
    } finally {
      clearTimeout(timer);
      stop.abort();
    }
  }

  // Pass on every whole event; returns the rest of the text.
  take(text) {
    const blocks = text.split("\n\n");
    const rest = blocks.pop();
    for (const block of blocks) {
      let name = "message";
      let data = "";
      for (const line of block.split("\n")) {
        if (line.startsWith("event: ")) name = line.slice(7);
        else if (line.startsWith("data: ")) data += line.slice(6);
      }
      if (data) this.tell(name, JSON.parse(data));
    }
    return rest;
  }
}
