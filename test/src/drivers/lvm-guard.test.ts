/** lvm-iscsi on a group in memory: what the log says of a pool that fills, and when its volumes are suspended. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { DRIVERS, SILENT } from "@libstorage/server";
import type { Logger, StorageDriver } from "@libstorage/server";
import * as v from "valibot";
import { contextOf, volumeOf } from "../conformance/fixture.js";
import { openOver } from "./lvm-fake.js";
import { VolumeGroupModel } from "./lvm-model.js";

const isRoot = process.getuid?.() === 0;
const skip = isRoot ? false : "only root may lock a part of a volume group, in /run/lock";
const GROUP = `guard${process.pid}`;
const DEVICES = `/dev/${GROUP}`;
const FILLING = "the thin pool is filling: extend it, or remove something";
const FULL = /as good as full: its volumes are suspended/;
const ROOM = "the thin pool has room again";
const LIMITS = { checkSeconds: 0.2, warnAt: 50, extendAt: 100, refuseAt: 60, suspendAt: 70 };

interface Line {
  readonly level: "info" | "warn" | "error";
  readonly fields: Readonly<Record<string, unknown>>;
  readonly message: string;
}

/** A driver on a model, whose log is kept. */
class Guarded {
  readonly model = new VolumeGroupModel(GROUP, "pool");
  readonly lines: Line[] = [];
  readonly context;
  #driver: StorageDriver | undefined;

  constructor() {
    const keep = (level: Line["level"]) => (fields: object, message: string) =>
      void this.lines.push({ level, fields: fields as Line["fields"], message });
    const log: Logger = {
      ...SILENT,
      info: keep("info"),
      warn: keep("warn"),
      error: keep("error"),
      child: () => log,
    };
    this.context = { ...contextOf(), log };
  }

  async open(): Promise<StorageDriver> {
    const keys = { volumeGroup: GROUP, thinPool: "pool", watchSeconds: 3600, pool: LIMITS };
    const config = v.parse(DRIVERS["lvm-iscsi"].config, keys) as object;
    this.#driver = await openOver(this.model, config, this.context);
    return this.#driver;
  }

  said(message: string | RegExp): Line[] {
    return this.lines.filter((line) =>
      typeof message === "string" ? line.message === message : message.test(line.message),
    );
  }

  /** How often the pool was looked at. */
  get looks(): number {
    return this.model.lines.filter((line) => /^lvs .*=pool /.test(line)).length;
  }

  async #until(isSo: () => boolean, what: string): Promise<void> {
    for (let left = 400; left > 0; left -= 1) {
      if (isSo()) return;
      await sleep(25);
    }
    assert.fail(`not within the time: ${what}`);
  }

  async untilSaid(message: string | RegExp, count: number): Promise<Line> {
    await this.#until(() => this.said(message).length >= count, `the log says ${message}`);
    return this.said(message)[count - 1] as Line;
  }

  /** Whatever comes of the present fill has come then. */
  async looksTwice(): Promise<void> {
    const before = this.looks;
    await this.#until(() => this.looks > before + 2, "it is looked at again");
  }

  async close(): Promise<void> {
    await this.#driver?.close();
  }
}

describe("lvm-iscsi, a pool that fills", { skip }, () => {
  const scratch = mkdtempSync(join(tmpdir(), "libstorage-guard-"));
  let guarded: Guarded;
  afterEach(async () => {
    await guarded.close();
    for (const path of [`/run/lock/libstorage/lvm-iscsi/${GROUP}.lvm-`, DEVICES, scratch])
      await rm(path, { recursive: true, force: true });
  });

  for (const [part, other] of [
    ["data", "metadata"],
    ["metadata", "data"],
  ] as const)
    it(`is warned of once, and once more when it has filled again: ${part}`, async () => {
      guarded = new Guarded();
      await guarded.open();
      guarded.model.setFill({ [part]: 49.99 });
      await guarded.looksTwice();
      assert.deepEqual(guarded.said(FILLING), [], "below the limit");
      guarded.model.setFill({ [part]: 50 });
      const { level, fields } = await guarded.untilSaid(FILLING, 1);
      assert.equal(level, "warn");
      assert.deepEqual(fields, {
        pool: `${GROUP}/pool`,
        [`${part}Percent`]: 50,
        [`${other}Percent`]: 1,
        full: [part],
      });
      guarded.model.setFill({ [part]: 51 });
      await guarded.looksTwice();
      assert.equal(guarded.said(FILLING).length, 1, "not at each look");
      guarded.model.setFill({ [other]: 50 });
      assert.deepEqual((await guarded.untilSaid(FILLING, 2)).fields["full"], ["data", "metadata"]);
      guarded.model.setFill({ [part]: 1, [other]: 1 });
      await guarded.looksTwice();
      guarded.model.setFill({ [part]: 55 });
      assert.deepEqual((await guarded.untilSaid(FILLING, 3)).fields["full"], [part]);
    });

  it("is warned of at the start, too", async () => {
    guarded = new Guarded();
    guarded.model.setFill({ data: 55 });
    await guarded.open();
    await guarded.untilSaid(FILLING, 1);
  });

  for (const part of ["data", "metadata"] as const)
    it(`suspends the volumes in it before it is full, by its ${part} alone`, async () => {
      guarded = new Guarded();
      const { model, context } = guarded;
      const driver = await guarded.open();
      const [thin, thick, idle] = [0, 1, 2].map((number) => volumeOf(driver, number));
      assert.ok(thin !== undefined && thick !== undefined && idle !== undefined);
      for (const volume of [thin, idle]) await driver.volumeCreate(volume, context);
      const fields = { provisioning: "thick" };
      await driver.volumeCreate({ ...thick, fields }, context);
      // The model has no devices. Those of active volumes lead to a device-mapper node, by its name.
      mkdirSync(DEVICES);
      mkdirSync(scratch, { recursive: true });
      for (const [{ id }, node] of [
        [thin, "dm-90001"],
        [thick, "dm-90002"],
      ] as const) {
        writeFileSync(join(scratch, node), "");
        symlinkSync(join(scratch, node), join(DEVICES, id));
      }
      const told = (): string[] => model.lines.filter((line) => line.startsWith("dmsetup"));
      model.setFill({ [part]: 69.99 });
      await guarded.looksTwice();
      assert.deepEqual(told(), [], "below the limit");
      model.setFill({ [part]: 70 });
      const { level, fields: known } = await guarded.untilSaid(FULL, 1);
      assert.equal(level, "error");
      assert.deepEqual([known[`${part}Percent`], known["volumes"]], [70, ["dm-90001"]]);
      await guarded.looksTwice();
      const suspending = "dmsetup suspend --noflush --nolockfs dm-90001";
      assert.deepEqual([...new Set(told())], [suspending], "nothing beside the pool, and no flush");
      model.setFill({ [part]: 10 });
      await guarded.untilSaid(ROOM, 1);
      const count = told().length;
      await guarded.looksTwice();
      assert.equal(told().length, count, "they go on");
    });
});
