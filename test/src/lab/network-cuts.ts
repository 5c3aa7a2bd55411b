/**
 * The network between both hosts goes in the middle of a call, and comes back; and the steps in a volume's life in
 * which it does so whatever carries the volume. Each is asked for again where its call failed, and either way there is
 * one of everything and the data are right.
 */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import type { CommandHold } from "./command-hold.js";
import { goes, succeeded } from "./e2e-steps.js";
import { until } from "./limit.js";
import type { RemoteHost } from "./remote-host.js";
import { DATA, MOUNTS, SLOW } from "./served-hosts.js";
import type { Counts, ServedHosts } from "./served-hosts.js";

/** How long the network is away from a command that waits for it. */
const AWAY_MS = 20_000;

/** Of the server's clients. The server carries out a call of one that is gone all the same, or takes it back. */
export const RESPONSE_TIMEOUT_MS = 30_000;

export class NetworkCuts<Census extends Counts> {
  readonly #storage: ServedHosts<Census>;
  readonly #host: RemoteHost;
  /** On `a`. */
  readonly #hold: CommandHold;
  /** Of the volume `data`. */
  readonly id: string;
  /** Of its file `file`. */
  #sum = "";

  constructor(storage: ServedHosts<Census>, host: RemoteHost, hold: CommandHold, id: string) {
    this.#storage = storage;
    this.#host = host;
    this.#hold = hold;
    this.id = id;
  }

  /** Makes the volume `data`, on which the steps are. */
  static async open<C extends Counts>(
    storage: ServedHosts<C>,
    host: RemoteHost,
    hold: CommandHold,
  ): Promise<NetworkCuts<C>> {
    // A first request on a slow machine may take longer than what is to be seen as an answer that does not come.
    const create = () => host.call("create", "data", 1, "cut-create").catch(() => undefined);
    const { id } = await until("the volume is made", create, SLOW.limitMs);
    return new NetworkCuts(storage, host, hold, id);
  }

  /**
   * The network goes when the command of host `b` is about to run; it comes back when the call has failed, or later.
   * @returns whether the call succeeded
   */
  async before(pattern: string, call: () => Promise<unknown>, awayMs = AWAY_MS): Promise<boolean> {
    const { network } = this.#storage.hosts;
    await this.#host.hold(pattern, "before");
    const result = succeeded(call());
    await this.#host.isHeld();
    await network.cut();
    await this.#host.call("go");
    const isOver = await Promise.race([
      result.then(() => true),
      sleep(awayMs, false, { ref: false }),
    ]);
    if (isOver) assert.equal(await result, false, "nothing comes through");
    await network.restore();
    return result;
  }

  /** Bytes that the server has been sent and has not read. */
  async #unread(): Promise<number> {
    const command = "ss -Htn state established sport = :7979";
    const lines = (await this.#storage.hosts.a.run(command)).split("\n");
    return lines.reduce((all, line) => all + Number(line.trim().split(/\s+/)[0] ?? 0), 0);
  }

  /** The request has arrived, and its answer finds no way back. */
  async #atAnswer(call: () => Promise<unknown>, isDone: () => Promise<boolean>): Promise<void> {
    const { server, hosts } = this.#storage;
    // So that a connection stands: what waits to be read is then the request, and no handshake.
    await this.#host.call("inspect", this.id);
    server.freeze();
    const result = succeeded(call());
    await until("the request is there", async () => (await this.#unread()) > 0);
    await hosts.network.cut();
    server.thaw();
    await until("the server has done it", isDone, SLOW.limitMs);
    assert.equal(await result, false, "its answer does not come");
    await hosts.network.restore();
  }

  /** The host gives up while the server is in the middle, which hears of it before it goes on. */
  async #inside(call: () => Promise<unknown>): Promise<void> {
    const { network } = this.#storage.hosts;
    await this.#hold.next(1, "before");
    const result = succeeded(call());
    await until("the server is in the middle", () => this.#hold.isHeld(), SLOW.limitMs);
    await network.cut();
    assert.equal(await result, false, "its answer does not come");
    await network.restore();
    // With it comes the end of the connection that was given up.
    await this.#host.call("inspect", this.id);
    await this.#hold.release();
  }

  async #attachments(): Promise<number> {
    return this.#storage.attachments();
  }

  async attach(): Promise<void> {
    // Before it a host looks at the volume, and that request would be the first to arrive.
    const ask = () => this.#host.call("ask", this.id);
    await this.#atAnswer(ask, async () => (await this.#attachments()) === 1);
    await this.#host.call("attach", this.id);
    await this.#storage.counts("attached", "attached");
  }

  async detach(): Promise<void> {
    const call = () => this.#host.call("detach", this.id);
    await this.#atAnswer(call, async () => (await this.#attachments()) === 0);
    await call();
    await this.#storage.counts("away", "detached");
  }

  async write(): Promise<void> {
    const { b, network } = this.#storage.hosts;
    const writer = b.start(
      `head -c 32M /dev/urandom > /tmp/source && dd if=/tmp/source of=${DATA}/file bs=256K oflag=dsync status=none`,
    );
    await until(
      "it is in the middle",
      async () => (await b.attempt(`test -s ${DATA}/file`)).code === 0,
    );
    await network.cut();
    await sleep(AWAY_MS);
    // Looking at the file would wait as the writer does.
    const { code } = await b.attempt(`kill -0 ${await writer.pid}`);
    assert.equal(code, 0, "the writer is over before the cut");
    await network.restore();
    assert.equal((await writer.ended).code, 0, "it waited");
    this.#sum = await b.run("md5sum < /tmp/source");
    await this.sumIsRight();
    await this.#storage.counts("mounted", "after the cut");
  }

  async sumIsRight(name = "data"): Promise<void> {
    const { b } = this.#storage.hosts;
    await b.run("echo 3 > /proc/sys/vm/drop_caches");
    assert.equal(await b.run(`md5sum < ${MOUNTS}/${name}/data/file`, SLOW), this.#sum, name);
  }

  async snapshot(): Promise<void> {
    const { b } = this.#storage.hosts;
    const call = () => this.#host.call("snapshot", this.id, "moment", "cut-snapshot");
    await this.#atAnswer(call, async () => (await this.#storage.stored()) === 2);
    const { id: snapshotID } = await call();
    assert.equal(await this.#storage.stored(), 2, "one volume, one snapshot");
    await b.run(`echo later > ${DATA}/later && sync`);
    const remove = () => this.#host.call("removeSnapshot", snapshotID);
    await this.#atAnswer(remove, async () => (await this.#storage.stored()) === 1);
    await goes(remove);
    assert.equal(await this.#storage.stored(), 1, "one volume");
  }

  /** A volume beside `data` is made and removed. */
  async create(): Promise<void> {
    const named = async () =>
      Object.values(await this.#storage.volumes()).filter(({ name }) => name === "plain");
    const create = () => this.#host.call("create", "plain", 1, "cut-plain");
    await this.#atAnswer(create, async () => (await named()).length === 1);
    const { id } = await create();
    assert.deepEqual(
      (await named()).map((one) => one.id),
      [id],
      "made once",
    );
    const remove = () => this.#host.call("remove", id);
    await this.#inside(remove);
    await goes(remove);
    assert.equal(await this.#storage.stored(), 1, "the one that was there");
  }

  async expand(): Promise<void> {
    const call = () => this.#host.call("expand", this.id, 2);
    await this.#atAnswer(call, async () => (await this.#storage.volumes())[this.id]?.size === 2);
    assert.equal((await call()).size, 2);
    await this.#storage.hasSize(this.id, 2);
    await this.sumIsRight();
  }

  /** While `data` is mounted: volumes are made from a snapshot of it, used, and removed. */
  async fromSnapshot(): Promise<void> {
    const { b } = this.#storage.hosts;
    const { id: snapshotID } = await this.#host.call("snapshot", this.id, "origin", "cut-origin");
    await b.run(`echo later > ${DATA}/after-origin && sync`);
    await this.#made(snapshotID, "answered", async (call, isDone) => this.#atAnswer(call, isDone));
    await this.#made(snapshotID, "inside", async (call) => this.#inside(call));
    await this.#host.call("removeSnapshot", snapshotID);
    await this.#storage.counts("mounted", "volumes from a snapshot");
  }

  /** Whether it is cut off from its answer or in the middle, a volume is made once, and goes once. */
  async #made(
    snapshotID: string,
    name: string,
    cut: (call: () => Promise<unknown>, isDone: () => Promise<boolean>) => Promise<void>,
  ): Promise<void> {
    const { b } = this.#storage.hosts;
    const named = async () =>
      Object.values(await this.#storage.volumes()).filter((one) => one.name === name);
    const create = () => this.#host.call("fromSnapshot", snapshotID, name, `cut-${name}`);
    await cut(create, async () => (await named()).length === 1);
    const { id } = await create();
    assert.deepEqual(
      (await named()).map((one) => one.id),
      [id],
      "made once",
    );
    assert.equal(await this.#storage.stored(), 3, "two volumes, one snapshot");
    await this.#host.call("mount", name);
    await this.sumIsRight(name);
    assert.doesNotMatch(await b.run(`ls ${MOUNTS}/${name}/data`), /after-origin/);
    await this.#host.call("unmount", name);
    const remove = () => this.#host.call("remove", id);
    await cut(remove, async () => (await named()).length === 0);
    await goes(remove);
    assert.deepEqual(await named(), [], "removed");
    assert.equal(await this.#storage.stored(), 2, "one volume, one snapshot");
  }

  /** Given back, so that nothing is left. */
  async end(): Promise<void> {
    await this.#host.call("remove", this.id);
    this.#host.close();
    await this.#storage.nothingLeft();
  }
}
