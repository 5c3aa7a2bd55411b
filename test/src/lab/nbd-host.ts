/** A client of image volumes over NBD, in the machine that serves them. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { openExecutor, runCommand } from "@libstorage/client/host";
import type { Attached, CheckOptions, Executor, ExecutorContext } from "@libstorage/client/host";
import { ConfigTree, ScopedConfig } from "@libstorage/model";
import { DoorHost } from "../exporters/door-host.js";

/** The lab's machines are slow, and more so on a busy host. */
const LIMIT_MS = 300_000;

export function contextFor(folder: string, config: object): ExecutorContext {
  return {
    config: new ScopedConfig([new ConfigTree(config)]),
    libFolder: join(folder, "c"),
    hostName: "here",
    isRoot: true,
    exec: runCommand,
  };
}

export class NbdHost {
  readonly folder: string;
  readonly context: ExecutorContext;
  readonly executor: Executor;
  readonly #options: object;
  #server: DoorHost | undefined;

  constructor(folder: string, options: object, config: object) {
    this.folder = folder;
    this.context = contextFor(folder, config);
    const executor = openExecutor("image", this.context);
    assert.ok(executor !== undefined);
    this.executor = executor;
    this.#options = options;
  }

  get server(): DoorHost {
    assert.ok(this.#server !== undefined, "the server runs");
    return this.#server;
  }

  async start(): Promise<void> {
    mkdirSync(this.folder, { recursive: true });
    this.#server = await DoorHost.open(this.folder, {
      nbd: this.#options,
      exports: [],
      hasHosts: true,
    });
  }

  async stop(): Promise<void> {
    await this.#server?.close();
    this.#server = undefined;
  }

  async attached(): Promise<Attached> {
    return this.server.attachToHost(await this.server.volume("qcow2"));
  }

  async connect(one: Attached): Promise<void> {
    await this.executor.connect?.(one, this.limits());
  }

  async disconnect(one: Attached): Promise<void> {
    await this.executor.disconnect?.(one, this.limits());
  }

  limits(): { timeoutMs: number; signal: AbortSignal } {
    return { timeoutMs: LIMIT_MS, signal: AbortSignal.timeout(LIMIT_MS) };
  }

  checkOptions(): CheckOptions {
    return {
      executors: this.context,
      mountPath: join(this.folder, "mounts"),
      signal: AbortSignal.timeout(LIMIT_MS),
      attachments: async () => ({ known: true, volumeIDs: new Set() }),
      giveBack: () => undefined,
    };
  }

  daemonPid(): number {
    const folder = join(this.context.libFolder, "nbd-client");
    const [place = ""] = readdirSync(folder).filter((name) => !name.endsWith(".lock"));
    return Number(readFileSync(join(folder, place, "pid"), "utf8"));
  }

  /** Of this client; `others` are devices of somebody else, which stay. */
  assertNothingLeft(others: readonly string[]): void {
    const folder = join(this.context.libFolder, "nbd-client");
    if (existsSync(folder)) assert.deepEqual(readdirSync(folder), [], "the daemons' folders");
    const links = existsSync("/dev/disk/by-id") ? readdirSync("/dev/disk/by-id") : [];
    assert.deepEqual(
      links.filter((name) => name.startsWith("nbd-")),
      [],
      "the links",
    );
    assert.deepEqual(connectedDevices(), others.toSorted(), "the kernel's devices");
  }
}

/** The kernel's NBD devices that are connected, whoever did it. */
export function connectedDevices(): readonly string[] {
  return readdirSync("/sys/block")
    .filter((name) => /^nbd\d+$/.test(name) && existsSync(`/sys/block/${name}/pid`))
    .toSorted();
}
