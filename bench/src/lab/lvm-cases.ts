/** LVM through the API against `lvcreate` itself, both in one volume group. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { serve, workFolder } from "../fixture.js";
import { alternate, figure, median } from "../measure.js";
import type { Figure, Say } from "../measure.js";

const ROUNDS = 3;
const OPERATIONS = 4;
const AT_ONCE = 50;
const READS = 100;
const LIMIT = 1.3;
const TOGETHER_LIMIT = 0.6;
const DISK = "/dev/vdc";
/** In the command by which the server looks how full its pool is. */
const POOL_LOOK = " -S lv_name=pool ";

type Service = "thin" | "thick";

const execute = promisify(execFile);

async function tool(file: string, ...args: string[]): Promise<void> {
  await execute(file, args);
}

async function makeGroup(): Promise<void> {
  await tool("modprobe", "-a", "dm-mod", "dm-thin-pool", "dm-snapshot");
  await tool("pvcreate", "-q", "--metadatasize", "64M", DISK);
  await tool("vgcreate", "-q", "vg0", DISK);
  await tool("lvcreate", "-qq", "-y", "-L", "100G", "--thinpool", "pool", "vg0");
}

function apiOf(url: string) {
  const call = async (method: string, path: string, body?: object): Promise<string> => {
    const answer = await fetch(`${url}/${path}`, {
      method,
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${text}`);
    return text;
  };
  const idOf = (text: string): string => (JSON.parse(text) as { id: string }).id;
  return {
    create: async (service: Service) =>
      idOf(await call("POST", `volumes/${service}`, { name: "bench", size: 1 })),
    snapshot: async (service: Service, id: string) =>
      idOf(await call("POST", `volumes/${service}/${id}?snapshot`, { snapshotName: "bench" })),
    remove: (service: Service, id: string) => call("DELETE", `volumes/${service}/${id}`),
    snapshotRemove: (service: Service, id: string) => call("DELETE", `snapshots/${service}/${id}`),
    get: (path: string) => call("GET", path),
  };
}

type Api = ReturnType<typeof apiOf>;

/** @returns the median of one after another */
async function timed(count: number, act: () => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  for (let number = 0; number < count; number += 1) {
    const started = performance.now();
    await act();
    times.push(performance.now() - started);
  }
  return median(times);
}

async function took(act: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await act();
  return performance.now() - started;
}

/** What the command makes; removed again where nobody looks at the clock. */
class Direct {
  #made = 0;
  #names: string[] = [];

  async create(service: Service): Promise<void> {
    const name = this.#next();
    const size = service === "thin" ? ["-V", "1G", "-T", "vg0/pool"] : ["-L", "1G", "vg0"];
    await tool("lvcreate", "-qq", "-y", ...size, "-n", name);
  }

  async snapshot(service: Service, of: string): Promise<void> {
    const size = service === "thin" ? [] : ["-l", "100%ORIGIN"];
    await tool("lvcreate", "-qq", "-y", "-s", ...size, "-n", this.#next(), `vg0/${of}`);
  }

  #next(): string {
    this.#made += 1;
    const name = `direct${this.#made}`;
    this.#names.push(name);
    return name;
  }

  async clear(): Promise<void> {
    const paths = this.#names.splice(0).map((name) => `vg0/${name}`);
    if (paths.length > 0) await tool("lvremove", "-qq", "-y", ...paths);
  }
}

async function singles(service: Service, api: Api, say: Say): Promise<Figure[]> {
  const direct = new Direct();
  const made: string[] = [];
  const snapshots: string[] = [];
  const volume = await api.create(service);
  const source = `${service}source`;
  const size = service === "thin" ? ["-V", "1G", "-T", "vg0/pool"] : ["-L", "1G", "vg0"];
  await tool("lvcreate", "-qq", "-y", ...size, "-n", source);
  const clear = async (): Promise<void> => {
    await direct.clear();
    await Promise.all(snapshots.splice(0).map((id) => api.snapshotRemove(service, id)));
    await Promise.all(made.splice(0).map((id) => api.remove(service, id)));
  };
  const compare = async (
    what: string,
    through: () => Promise<unknown>,
    command: () => Promise<unknown>,
  ): Promise<Figure> => {
    const side = (act: () => Promise<unknown>) => async (): Promise<number> => {
      const ms = await timed(OPERATIONS, act);
      await clear();
      return ms;
    };
    const { ratio, ours, theirs } = await alternate(ROUNDS, side(through), side(command));
    say(
      `${service} ${what} ${median(ours).toFixed(0)} ms, command ${median(theirs).toFixed(0)} ms`,
    );
    return figure(`${service} ${what} through the API, over lvcreate`, ratio, LIMIT, "lower");
  };
  const figures = [
    await compare(
      "create",
      async () => made.push(await api.create(service)),
      () => direct.create(service),
    ),
    await compare(
      "snapshot",
      async () => snapshots.push(await api.snapshot(service, volume)),
      () => direct.snapshot(service, source),
    ),
  ];
  await api.remove(service, volume);
  await tool("lvremove", "-qq", "-y", `vg0/${source}`);
  return figures;
}

/** Fifty at once through the API against fifty commands, one after another; the volumes of ours stay. */
async function together(service: Service, api: Api, say: Say): Promise<Figure> {
  const direct = new Direct();
  const theirs = await took(async () => {
    for (let number = 0; number < AT_ONCE; number += 1) await direct.create(service);
  });
  await direct.clear();
  const ours = await took(() =>
    Promise.all(Array.from({ length: AT_ONCE }, () => api.create(service))),
  );
  say(
    `${AT_ONCE} ${service} volumes: ours ${(ours / 1000).toFixed(1)} s, commands ${(theirs / 1000).toFixed(1)} s`,
  );
  const name = `${AT_ONCE} ${service} creates at once, over ${AT_ONCE} lvcreate one after another`;
  return figure(name, ours / theirs, TOGETHER_LIMIT, "lower");
}

async function commandsOf(api: Api): Promise<readonly string[]> {
  return JSON.parse(await api.get("commands")) as string[];
}

/** Lists and single volumes, with a hundred volumes there. */
async function reads(api: Api, say: Say): Promise<Figure> {
  const before = (await commandsOf(api)).length;
  const ids = Object.keys(JSON.parse(await api.get("volumes/thin")) as object);
  for (let number = 0; number < READS; number += 1) {
    await api.get("volumes");
    await api.get(`volumes/thin/${ids[number % ids.length]}`);
  }
  const run = (await commandsOf(api)).slice(before);
  // Every ten minutes the server looks at its pool, which no read asks for.
  const asked = run.filter((command) => !command.includes(POOL_LOOK));
  say(
    `${READS} lists and ${READS} single volumes, ${ids.length} thin volumes there: ${asked.length} commands, and ${run.length - asked.length} looks at the pool`,
  );
  for (const command of asked) say(`  ${command}`);
  return figure(`commands run by ${2 * READS} reads`, asked.length, 0, "lower");
}

export async function lvmAgainstCommand(say: Say): Promise<Figure[]> {
  await makeGroup();
  const ours = await serve("lab/serve-lvm.js", [workFolder()]);
  const api = apiOf(ours.url);
  if ((await commandsOf(api)).length === 0) throw new Error("commands are not counted");
  const figures = [
    ...(await singles("thin", api, say)),
    ...(await singles("thick", api, say)),
    await together("thin", api, say),
    await together("thick", api, say),
    await reads(api, say),
  ];
  await ours.stop();
  return figures;
}
