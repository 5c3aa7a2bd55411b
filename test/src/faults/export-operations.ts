/** What is done to exports, as the fault run tries it. */
import { once } from "node:events";
import { open } from "node:fs/promises";
import { connect } from "node:net";
import type { Export, ExportAddRequest } from "@libstorage/model";
import type { DoorHost } from "../exporters/door-host.js";
import { NbdTalk } from "../exporters/nbd-talk.js";
import { pathOf } from "./export-world.js";
import type { RecordedDoor } from "./export-world.js";

export const [ONE, TWO] = ["image-000", "image-001"];
/** The door that is worked on, and one of another volume. */
export const DOOR = "d";
export const OTHER = "other";

type Way = Pick<ExportAddRequest, "type" | "transport">;

export const WAYS: Readonly<Record<string, Way>> = {
  "nbd over Unix": { type: "nbd", transport: "unix" },
  "nbd over TCP": { type: "nbd", transport: "tcp" },
  fuse: { type: "fuse" },
  "vhost-user-blk": { type: "vhost-user-blk" },
};

/** Someone who uses a door; ends it. */
export type User = () => Promise<void>;

export async function useDoor(door: RecordedDoor): Promise<User> {
  const path = pathOf(door);
  if (door.type === "fuse") {
    const handle = await open(path ?? "", "r");
    return () => handle.close().catch(() => {});
  }
  if (door.type === "vhost-user-blk") {
    const machine = connect(path ?? "").on("error", () => {});
    await once(machine, "connect");
    return async () => void machine.destroy();
  }
  const [host = "", port = ""] = (door.attachment.fields?.["address"] ?? "").split(":");
  const talk = await (path === undefined ? NbdTalk.open(host, Number(port)) : NbdTalk.at(path));
  await talk.go(door.name);
  return async () => talk.end();
}

export interface ExportOperation {
  readonly name: string;
  /** What is there before. */
  readonly doors: readonly ExportAddRequest[];
  /** Whether somebody uses the door. */
  readonly isUsed: boolean;
  run(host: DoorHost): Promise<Export | null>;
  /** What the door may be afterwards: undefined when it is gone. */
  readonly done: (state: string | undefined) => boolean;
}

const other: ExportAddRequest = { volumeID: TWO, type: "nbd", transport: "unix", id: OTHER };
const THROTTLE = { iopsTotal: 5_000 };

function operationsOn(name: string, way: Way): readonly ExportOperation[] {
  const door: ExportAddRequest = { ...way, volumeID: ONE, id: DOOR, writable: true };
  const there = { doors: [other, door], isUsed: false };
  const isOpen = (state: string | undefined): boolean => state === "open";
  const isGone = (state: string | undefined): boolean => state === undefined;
  // The last user may leave with the server; then it is removed.
  const isHidden = (state: string | undefined): boolean => state === "hidden" || isGone(state);
  const isDown = (state: string | undefined): boolean => state === "shutdown" || isGone(state);
  return [
    {
      name: `add ${name}`,
      doors: [other],
      isUsed: false,
      run: (host) => host.add(door),
      done: isOpen,
    },
    {
      ...there,
      name: `update ${name}`,
      run: (host) => host.update(DOOR, { throttle: THROTTLE as never }),
      done: isOpen,
    },
    { ...there, name: `remove ${name}, safe`, run: (host) => host.remove(DOOR), done: isGone },
    {
      ...there,
      name: `remove ${name}, hard`,
      isUsed: true,
      run: (host) => host.remove(DOOR, "hard"),
      done: isGone,
    },
    {
      ...there,
      name: `remove ${name}, hide`,
      isUsed: true,
      run: (host) => host.remove(DOOR, "hide"),
      done: isHidden,
    },
    {
      ...there,
      name: `remove ${name}, soft`,
      isUsed: true,
      run: (host) => host.remove(DOOR, "soft"),
      done: isDown,
    },
  ];
}

/** The first one starts the daemon, the last one ends it. */
const ALONE: readonly ExportOperation[] = ["nbd over Unix", "fuse"].flatMap((name) =>
  operationsOn(`the only ${name}`, WAYS[name] as Way)
    .filter(({ name: one }) => /^add|safe$/.test(one))
    .map((one) => ({ ...one, doors: one.doors.filter(({ id }) => id !== OTHER) })),
);

/** A reader comes to a volume, or leaves it, that another one has open. */
const READERS: readonly ExportOperation[] = operationsOn("a second reader", {
  type: "nbd",
  transport: "unix",
})
  .filter(({ name }) => /^add|hard$/.test(name))
  .map((one) => ({
    ...one,
    doors: [{ ...other, volumeID: ONE }, ...one.doors.slice(1)].map((door) => ({
      ...door,
      writable: false,
    })),
    ...(one.name.startsWith("add") && {
      run: (host: DoorHost) =>
        host.add({ volumeID: ONE, type: "nbd", transport: "unix", id: DOOR }),
    }),
  }));

/** Doors of all kinds, for a start that has to make them again. */
export const ALL_KINDS: readonly ExportAddRequest[] = [
  { volumeID: ONE, type: "fuse", id: DOOR, writable: true },
  ...Object.values(WAYS)
    .filter(({ type }) => type !== "fuse")
    .map((way, index) => ({ ...way, volumeID: TWO, id: `${OTHER}${index}` })),
];

export const OPERATIONS: readonly ExportOperation[] = [
  ...Object.entries(WAYS).flatMap(([name, way]) => operationsOn(name, way)),
  ...ALONE,
  ...READERS,
];
