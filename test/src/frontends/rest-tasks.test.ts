import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { mocks, startRest } from "./rest-server.js";
import type { RestServer } from "./rest-server.js";

interface Task {
  readonly id: number;
  readonly state: string;
  readonly operation: string;
  readonly result?: { readonly id: string };
  readonly error?: unknown;
  readonly progress?: { readonly done: number; readonly total: number; readonly unit: string };
}

const EXE_TIMEOUT = "    tasks: {exeTimeout: 50ms}\n";

describe("tasks over REST", () => {
  let server: RestServer;
  let id: string;

  const copy = (name: string, query = ""): ReturnType<RestServer["ask"]> =>
    server.ask("POST", `/volumes/slow/${id}?copy${query}`, { body: { volumeName: name } });
  const inspect = async (task: number): Promise<Task> =>
    (await server.ask("GET", `/tasks/${task}`)).json<Task>();
  async function ended(task: number): Promise<Task> {
    const deadline = Date.now() + 10_000;
    for (;;) {
      const found = await inspect(task);
      if (found.state === "success" || found.state === "error") return found;
      assert.ok(Date.now() < deadline, "the task does not end");
    }
  }

  before(async () => {
    server = await startRest(mocks(400) + EXE_TIMEOUT);
    const task = await server.ask("POST", "/volumes/slow?async", {
      body: { name: "source", size: 1 },
    });
    // On a busy machine even a create may take longer than exeTimeout.
    id = (await ended(task.json<Task>().id)).result?.id ?? assert.fail("no source was made");
  });
  after(() => server.close());

  it("async answers 202 and the task at once; it shows progress and the result", async () => {
    const answer = await copy("by-task", "&async");
    assert.equal(answer.status, 202);
    const task = answer.json<Task>();
    assert.equal(task.operation, "volumeCopy");
    let progress: Task["progress"];
    const deadline = Date.now() + 10_000;
    while (progress === undefined) {
      assert.ok(Date.now() < deadline, "no progress is shown");
      ({ progress } = await inspect(task.id));
    }
    assert.equal(progress.total, 10);
    const { state, result } = await ended(task.id);
    assert.equal(state, "success");
    assert.equal((await server.ask("GET", `/volumes/slow/${result?.id}`)).status, 200);
  });

  it("what takes longer than exeTimeout answers 408 and goes on", async () => {
    const answer = await copy("late");
    assert.equal(answer.status, 408);
    assert.equal((await ended(answer.json<Task>().id)).state, "success");
    assert.equal((await server.ask("GET", "/volumes/slow/late?byName")).status, 200);
  });

  it("DELETE cancels: the task ends with an error and nothing is left", async () => {
    const task = (await copy("cancelled", "&async")).json<Task>();
    const cancelled = await server.ask("DELETE", `/tasks/${task.id}`);
    assert.equal(cancelled.status, 200);
    assert.equal((await ended(task.id)).state, "error");
    assert.equal((await server.ask("GET", "/volumes/slow/cancelled?byName")).status, 404);
    const again = await server.ask("DELETE", `/tasks/${task.id}`);
    assert.equal(again.status, 412);
    assert.equal((await server.ask("DELETE", "/tasks/999999")).status, 404);
  });

  it("a failure after the 202 stays in the task and ends no server", async () => {
    const body = { name: "Volume 010", iops: 1000, size: 10 };
    const answer = await server.ask("POST", "/volumes/slow?async", { body });
    assert.equal(answer.status, 202);
    const { state, error } = await ended(answer.json<Task>().id);
    assert.equal(state, "error");
    assert.equal((error as { msg: string }).msg, "iops required");
    assert.equal((await server.ask("GET", "/health")).status, 200);
  });

  it("a caller that goes away does not stop what it began", async () => {
    const socket = server.socket();
    const body = JSON.stringify({ volumeName: "abandoned" });
    socket.write(
      `POST /volumes/slow/${id}?copy HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    await new Promise((resolve) => {
      setTimeout(resolve, 30);
    });
    socket.destroy();
    const deadline = Date.now() + 10_000;
    while ((await server.ask("GET", "/volumes/slow/abandoned?byName")).status !== 200)
      assert.ok(Date.now() < deadline, "the copy was lost");
  });

  it("a repeat with the same Idempotency-Key answers the first answer", async () => {
    const headers = { "Idempotency-Key": "once" };
    const body = { name: "once", size: 3 };
    const ask = () => server.ask("POST", "/volumes/one", { headers, body });
    let first = await ask();
    // On a busy machine it may take longer than this server waits; the same request then asks for its answer.
    for (let times = 0; first.status === 408 && times < 50; times += 1) first = await ask();
    const second = await ask();
    assert.deepEqual([first.status, second.status], [201, 201]);
    assert.equal(second.text, first.text);
    const other = await server.ask("POST", "/volumes/one", { headers, body: { name: "other" } });
    assert.ok(other.status >= 400 && other.status < 500, other.text);
  });

  it("expand makes a volume larger, never smaller", async () => {
    const expand = (size: number): ReturnType<RestServer["ask"]> =>
      server.ask("POST", `/volumes/slow/${id}?expand`, { body: { size } });
    const grown = await expand(5);
    // On a busy machine this, too, may take longer than exeTimeout.
    if (grown.status === 408) await ended(grown.json<Task>().id);
    else assert.equal(grown.status, 200);
    const { size } = (await server.ask("GET", `/volumes/slow/${id}`)).json<{ size: number }>();
    assert.equal(size, 5);
    const shrunk = await expand(4);
    assert.ok(shrunk.status >= 400 && shrunk.status < 500, shrunk.text);
    if (shrunk.status === 408)
      assert.equal((await ended(shrunk.json<Task>().id)).state, "error", "it was refused late");
  });
});
