import type { StorageEvent } from "@libstorage/model";
import type { Command } from "../cli/command.js";
import { printable } from "../cli/columns.js";
import { readCount } from "./values.js";

export const command: Command = {
  about: "Show changes as they happen, until interrupted",
  args: [],
  options: {
    after: { type: "string", value: "ID", about: "begin with what came after this event" },
    count: { type: "string", value: "NUMBER", about: "end after so many events" },
  },
  notes: ["With --json each event is one line."],
  async run(given, session) {
    const client = await session.client();
    const { service } = await session.settings();
    const after = readCount("after", given.text("after"));
    const count = readCount("count", given.text("count"));
    if (count === 0) return;
    const events = client.events({
      signal: session.signal,
      ...(service !== undefined && { service }),
      ...(after !== undefined && { lastEventID: after }),
      onBreak: (error) => session.note(`${error.message}; trying again`),
    });
    let seen = 0;
    for await (const event of events) {
      session.line(session.isJson ? JSON.stringify(event) : lineOf(event));
      seen += 1;
      if (seen === count) break;
    }
  },
};

function lineOf(event: StorageEvent): string {
  const { id, time, operation, phase, service, volumeID, snapshotID, task, who, error } = event;
  const words = [
    String(id),
    new Date(time).toISOString(),
    operation,
    phase,
    service,
    volumeID,
    snapshotID,
    task === undefined ? undefined : `task=${task}`,
    who === undefined || who === "" ? undefined : `by=${who}`,
    error === undefined ? undefined : `error=${error}`,
  ];
  return printable(words.filter((word) => word !== undefined && word !== "").join(" "));
}
