/**
 * Runs in a machine: volumes of this host as its plugins use them. Argument: `HostSessionOptions`. Its notes are the
 * commands that are held as `hold` asked.
 */
import { open } from "node:fs/promises";
import { runCommand } from "@libstorage/client/host";
import type { Exec } from "@libstorage/client/host";
import type { HostSessionOptions, When } from "../remote-host.js";
import { answerCalls, say } from "./answer-calls.js";
import { openOwnHost } from "./own-host.js";

const { service, ...times } = JSON.parse(process.argv[2] ?? "{}") as HostSessionOptions;

/** The next command with these words waits. */
let held: { readonly pattern: RegExp; readonly when: When } | undefined;
let release: (() => void) | undefined;

async function wait(line: string): Promise<void> {
  held = undefined;
  const released = new Promise<void>((resolve) => (release = resolve));
  say({ note: line });
  await released;
}

const exec: Exec = async (file, args, options) => {
  const line = [file, ...args].join(" ");
  const isIt = held?.pattern.test(line) === true;
  const when = isIt ? held?.when : undefined;
  if (when === "before") await wait(line);
  const result = await runCommand(file, args, options);
  if (when === "after") await wait(line);
  return result;
};

const { client, volumes } = await openOwnHost({ service, exec, ...times });

/** Until its first block has been read. */
async function readFirst(device: string): Promise<void> {
  const handle = await open(device, "r");
  try {
    const { bytesRead } = await handle.read(Buffer.alloc(4096), 0, 4096, 0);
    if (bytesRead !== 4096) throw new Error(`${device} cannot be read`);
  } finally {
    await handle.close();
  }
}

async function msOf(act: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await act();
  return performance.now() - started;
}

/** What an administrator types for a target that is there, passwords both ways included. */
function loginByHand(iqn: string, portal: string, link: string, words: readonly string[]): string {
  const node = `iscsiadm -m node -T ${iqn} -p ${portal}`;
  const [userName, secret, mutualName, mutualSecret] = words;
  const updates = Object.entries({
    authmethod: "CHAP",
    username: userName,
    password: secret,
    username_in: mutualName,
    password_in: mutualSecret,
  }).map(([name, value]) => `${node} -o update -n node.session.auth.${name} -v '${value}'`);
  const wait = `until [ -b ${link} ]; do sleep 0.01; done`;
  return [`${node},1 -o new`, ...updates, `${node} --login`, wait].join(" && ");
}

const keyed = (key: string | undefined): { readonly idempotencyKey?: string } =>
  key === undefined ? {} : { idempotencyKey: key };

/** The last argument of what is not the same when it is done twice is a key by which the server knows it again. */
export const CALLS = {
  create: (name: string, size: number, key?: string) =>
    client.volumeCreate({ service }, { name, size }, keyed(key)),
  inspect: (volumeID: string) => volumes.host.inspect(volumeID, {}),
  /** The one request by which the host becomes the volume's holder. */
  async ask(volumeID: string) {
    const context = await volumes.host.asHost({});
    return client.volumeAttach({ service, volumeID }, {}, context);
  },
  attach: (volumeID: string) => volumes.attach(volumeID, false, {}),
  detach: (volumeID: string) => volumes.detach(volumeID, false, {}),
  mount: (name: string) => volumes.mount(name, {}, {}),
  unmount: (name: string) => volumes.unmount(name, {}, {}),
  async expand(volumeID: string, size: number) {
    const { size: now } = await client.volumeExpand({ service, volumeID }, { size }, {});
    return { size: now, done: await volumes.expanded(volumeID, {}) };
  },
  snapshot: (volumeID: string, snapshotName: string, key?: string) =>
    client.volumeSnapshot({ service, volumeID }, { snapshotName }, keyed(key)),
  fromSnapshot: (snapshotID: string, name: string, key?: string) =>
    client.volumeCreateFromSnapshot({ service, snapshotID }, { name }, keyed(key)),
  remove: (volumeID: string) => client.volumeRemove({ service, volumeID }, undefined, {}),
  removeSnapshot: (snapshotID: string) =>
    client.snapshotRemove({ service, snapshotID }, undefined, {}),
  /** @returns milliseconds, from the call until the device is ready; it is detached again */
  async attachTimed(volumeID: string) {
    const ms = await msOf(async () => {
      const { attachments = [] } = await volumes.attach(volumeID, false, {});
      await readFirst(attachments[0]?.deviceName ?? "");
    });
    await volumes.detach(volumeID, false, {});
    return ms;
  },
  /** The same of a login by hand, to a target that is made before the clock runs. */
  async loginTimed(volumeID: string, words: readonly string[]) {
    const context = await volumes.host.asHost({});
    const params = { service, volumeID };
    const { volume } = await client.volumeAttach(params, {}, context);
    const [own] = volume.attachments ?? [];
    const { iqn = "", portals = "" } = own?.fields ?? {};
    const { signal } = new AbortController();
    const run = (script: string) =>
      runCommand("bash", ["-c", script], { signal, timeoutMs: 300_000 });
    const ms = await msOf(async () => {
      await run(loginByHand(iqn, portals, own?.deviceName ?? "", words));
      await readFirst(own?.deviceName ?? "");
    });
    const node = `iscsiadm -m node -T ${iqn} -p ${portals}`;
    await run(`${node} --logout && ${node} -o delete`);
    await client.volumeDetach(params, {}, context);
    return ms;
  },
  async hold(pattern: string, when: When) {
    held = { pattern: new RegExp(pattern), when };
  },
  async go() {
    release?.();
  },
};

answerCalls(CALLS);
