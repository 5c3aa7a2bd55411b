/** The README's quick start, in a copy of this checkout, as a new user types it. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const CHECKOUT = fileURLToPath(new URL("../../../", import.meta.url));
const MARK = "<!-- quick-start: a test runs these lines -->";
const NOT_COPIED = new Set([".git", ".state", ".tls"]);

/** The blocks of the README that are marked, in order. */
async function blocks(): Promise<string[]> {
  const readme = await readFile(join(CHECKOUT, "README.md"), "utf8");
  return readme
    .split(MARK)
    .slice(1)
    .map((part) => /^\s*```sh\n([\s\S]*?)```/.exec(part)?.[1] ?? assert.fail("no block at a mark"));
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

describe("the README's quick start", () => {
  let copy = "";
  let server: ChildProcess | undefined;
  let said = "";

  before(async () => {
    copy = await mkdtemp(join(tmpdir(), "libstorage-readme-"));
    const names = (await readdir(CHECKOUT)).filter((name) => !NOT_COPIED.has(name));
    await run("cp", ["-a", "--reflink=auto", ...names.map((name) => join(CHECKOUT, name)), copy]);
    const child = spawn("npm", ["start", "--", "--port", String(await freePort())], {
      cwd: copy,
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    });
    server = child;
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (text: Buffer) => {
        said += text.toString();
      });
    const limit = Date.now() + 180_000;
    while (!said.includes("In another terminal")) {
      assert.equal(child.exitCode, null, `npm start ended:\n${said}`);
      assert.ok(Date.now() < limit, `npm start is not ready:\n${said}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  });

  after(async () => {
    if (server?.pid !== undefined && server.exitCode === null) {
      const ended = once(server, "exit");
      process.kill(-server.pid, "SIGTERM");
      await ended;
    }
    const mounts = await readFile("/proc/self/mountinfo", "utf8");
    assert.ok(!mounts.includes(copy), `left mounted below ${copy}`);
    await rm(copy, { recursive: true, force: true });
  });

  it("ends with the file of the snapshot's moment in a second volume", async () => {
    const [use = "", giveBack = ""] = await blocks();
    const shell = (script: string) =>
      run("bash", ["-euo", "pipefail", "-c", script], { cwd: copy, timeout: 120_000 });
    const { stdout } = await shell(use);
    assert.match(stdout, /^hello$/m);
    assert.match(stdout, /second\s+1 GiB\s+attached/);
    const [exported = ""] = use.split("\n");
    await shell(`${exported}\n${giveBack}`);
    const list = await shell(`${exported}\nnpx libstorage volume ls --json`);
    assert.deepEqual(JSON.parse(list.stdout), {});
  });

  it("a mistake gets the next step", async () => {
    const failure = await run("npx", ["libstorage", "volume", "mount", "nowhere"], {
      cwd: copy,
      env: { ...process.env, LIBSTORAGE_HOME: join(copy, ".state") },
    }).catch((error: { code: number; stderr: string }) => error);
    assert.ok("code" in failure && failure.code === 1);
    assert.match(failure.stderr, /nowhere/);
  });
});
