/** Tests that need a network and tables of mounts and exports of their own, apart from those of this host. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Replay } from "../lab/replay.js";

const INSIDE = "LIBSTORAGE_PRIVATE_HOST";
const REPORTER = fileURLToPath(new URL("../lab/events-reporter.js", import.meta.url));

/** Of the one address there, beside that of loopback. */
export const OWN_ADDRESS = "10.77.0.1";

/** nfs-ganesha binds to no address while there is only that of loopback. */
const PREPARE = `set -e
ip link set lo up
ip link add lan0 type veth peer name lan1
ip addr add ${OWN_ADDRESS}/24 dev lan0
ip link set lan0 up && ip link set lan1 up
if [ -d /var/lib/nfs ]; then mount -t tmpfs tmpfs /var/lib/nfs; touch /var/lib/nfs/etab /var/lib/nfs/rmtab; fi
mount -t tmpfs tmpfs /run
exec "$@"`;

/** Which of the tools are not there, or false. */
export function missing(...tools: readonly string[]): string | false {
  if (process.getuid?.() !== 0) return "only root can mount and export";
  const folders = [...(process.env["PATH"] ?? "").split(":"), "/usr/sbin", "/sbin"];
  const none = ["unshare", "ip", ...tools].filter(
    (tool) => !folders.some((folder) => existsSync(`${folder}/${tool}`)),
  );
  return none.length > 0 && `${none.join(", ")} not installed`;
}

async function runInside(file: string, replay: Replay, signal: AbortSignal): Promise<void> {
  // A runner of its own: node:test does not start one below another.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const node = [process.execPath, "--enable-source-maps", `--test-reporter=${REPORTER}`];
  const args = ["-m", "-n", "--propagation", "private", "bash", "-c", PREPARE, "-"];
  const child = spawn("unshare", [...args, ...node, "--test-reporter-destination=stdout", file], {
    env: { ...env, [INSIDE]: "1" },
    stdio: ["ignore", "pipe", "pipe"],
    signal,
  });
  let stderr = "";
  child.stderr.on("data", (text: Buffer) => (stderr = `${stderr}${text.toString()}`.slice(-8000)));
  createInterface({ input: child.stdout }).on("line", (line) => replay.line(line));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  await replay.finish(code, stderr);
}

/**
 * Declares the tests of a file that runs in namespaces of its own; seen from outside they are parts of one test.
 * @param url the file's `import.meta.url`
 */
export function inPrivateHost(
  url: string,
  { name, skip, limitMs }: { name: string; skip: string | false; limitMs: number },
  declare: () => void,
): void {
  if (process.env[INSIDE] === "1") {
    declare();
    return;
  }
  test(name, { skip, timeout: limitMs }, async (context) => {
    await runInside(fileURLToPath(url), new Replay(context), context.signal);
  });
}
