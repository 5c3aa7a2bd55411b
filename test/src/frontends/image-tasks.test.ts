/** A convert as a task over HTTP: its progress, and its cancellation midway. */
import assert from "node:assert/strict";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { toolsMissing } from "../drivers/image-place.js";
import { until } from "../exporters/client.js";
import { run } from "../exporters/nbd-client.js";
import { startRest } from "./rest-server.js";
import type { RestServer } from "./rest-server.js";

const MIB = 1024 ** 2;
const SIZE = 1024 * MIB;
const DATA_MIB = 192;

interface Task {
  readonly id: number;
  readonly state: string;
  readonly progress?: { readonly done: number; readonly total: number; readonly unit: string };
  readonly error?: { readonly message?: string };
}

const CONFIG = `
libstorage:
  server:
    services:
      disks: {driver: image, image: {root: ROOT/root, format: raw}}
`;

const skip = toolsMissing("qemu-img", "qemu-io");

describe("a convert as a task", { skip }, () => {
  let server: RestServer;
  let volumeID: string;

  before(async () => {
    server = await startRest(CONFIG);
    const made = await server.ask("POST", "/volumes/disks", { body: { name: "v", size: 1 } });
    volumeID = made.json<{ id: string }>().id;
    await run("qemu-io", "-f", "raw", "-c", `write -P 17 0 ${DATA_MIB}M`, disk("raw"));
  });
  after(async () => {
    await server.ask("DELETE", `/volumes/disks/${volumeID}`);
    await server.close();
  });

  const folder = (): string => join(server.folder, "root/vol", volumeID);
  const disk = (format: string): string => join(folder(), `disk.${format}`);
  const inspect = async (id: number): Promise<Task> =>
    (await server.ask("GET", `/tasks/${id}`)).json<Task>();
  const isOver = ({ state }: Task): boolean => state === "success" || state === "error";

  async function convert(format: string): Promise<number> {
    const path = `/volumes/disks/${volumeID}?convert&async`;
    const answer = await server.ask("POST", path, { body: { format } });
    assert.equal(answer.status, 202, answer.text);
    return answer.json<Task>().id;
  }

  /** The process that copies now. @see proc(5) */
  function copying(): number | undefined {
    const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
    const found = pids.find((pid) => {
      try {
        const args = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
        return args.includes("convert") && args.some((one) => one.startsWith(folder()));
      } catch {
        return false;
      }
    });
    return found === undefined ? undefined : Number(found);
  }

  /** So that it cannot come to its end between two looks. @returns whether it is there */
  function signal(name: "SIGSTOP" | "SIGCONT"): boolean {
    const pid = copying();
    try {
      return pid !== undefined && process.kill(pid, name);
    } catch {
      return false;
    }
  }

  async function checkContent(format: string): Promise<void> {
    const commands = ["-c", `read -P 17 0 ${DATA_MIB}M`, "-c", `read -P 0 ${DATA_MIB}M 16M`];
    const text = await run("qemu-io", "-r", "-f", format, ...commands, disk(format));
    assert.doesNotMatch(text, /Pattern verification failed/);
    assert.deepEqual(readdirSync(folder()), [`disk.${format}`]);
    assert.deepEqual(readdirSync(join(server.folder, "root/vol")).sort(), [
      volumeID,
      `${volumeID}.json`,
    ]);
    const left = readdirSync(join(server.folder, "root")).filter((name) =>
      name.startsWith(".tmp-"),
    );
    assert.deepEqual(left, []);
  }

  it("that is cancelled in the middle leaves the original and nothing else", async () => {
    const before = (await server.ask("GET", `/volumes/disks/${volumeID}`)).text;
    const { mtimeMs } = statSync(disk("raw"));
    const id = await convert("qcow2");
    let task: Task | undefined;
    await until("it is in the middle", async () => {
      signal("SIGSTOP");
      task = await inspect(id);
      assert.ok(!isOver(task), "it was over before it was looked at");
      if ((task.progress?.done ?? 0) > 0) return true;
      signal("SIGCONT");
      return false;
    });
    assert.ok((task?.progress?.done ?? SIZE) < SIZE);
    assert.notEqual(copying(), undefined);
    assert.ok(readdirSync(folder()).length > 1, "something was written already");
    assert.equal((await server.ask("DELETE", `/tasks/${id}`)).status, 200);
    // A process that stands still would be killed, some seconds later.
    signal("SIGCONT");
    await until("it is over", async () => isOver(await inspect(id)));
    const { state, error } = await inspect(id);
    assert.equal(state, "error");
    assert.match(JSON.stringify(error), /cancelled/);
    assert.equal(copying(), undefined, "its process has ended");
    assert.equal((await server.ask("GET", `/volumes/disks/${volumeID}`)).text, before);
    assert.equal(statSync(disk("raw")).mtimeMs, mtimeMs);
    assert.deepEqual(server.app.storage.journal.openIntents(), []);
    await checkContent("raw");
  });

  it("tells how far it is, in bytes, rising up to the end", async () => {
    const id = await convert("qcow2");
    const seen: number[] = [];
    let task: Task;
    do {
      signal("SIGSTOP");
      task = await inspect(id);
      const { progress } = task;
      if (progress !== undefined) {
        assert.deepEqual([progress.total, progress.unit], [SIZE, "bytes"]);
        if (progress.done !== seen.at(-1)) seen.push(progress.done);
      }
      signal("SIGCONT");
      await new Promise((resolve) => setTimeout(resolve, 2));
    } while (!isOver(task));
    assert.equal(task.state, "success", JSON.stringify(task));
    assert.deepEqual(
      seen,
      [...seen].sort((a, b) => a - b),
      "it rises",
    );
    const between = seen.filter((done) => done > 0 && done < SIZE);
    assert.ok(between.length >= 3, `it told ${seen.join(", ")}`);
    assert.equal(seen.at(-1), SIZE);
    await checkContent("qcow2");
  });
});
