import { StorageError } from "@libstorage/model";
import type { Command } from "../cli/command.js";
import { columns } from "../cli/columns.js";

export const command: Command = {
  about: "Show how the server, its services and certificates are",
  args: [],
  options: {},
  notes: ["Exits with 1 if the server is failing."],
  async run(_given, session) {
    const client = await session.client();
    const health = await client.health({}, undefined, await session.context());
    const services = Object.entries(health.services).map(([name, one]) => [
      `service ${name}`,
      [
        one.ready ? "ready" : "not ready",
        `${one.volumes} volumes`,
        `${one.snapshots} snapshots`,
        ...(one.broken > 0 ? [`${one.broken} broken`] : []),
        ...(one.error === undefined ? [] : [one.error]),
      ].join(", "),
    ]);
    const certificates = (health.certificates ?? []).map(({ subject, daysLeft, notAfter }) => [
      `certificate ${subject}`,
      `${daysLeft} days left (until ${notAfter})`,
    ]);
    const warnings = health.warnings.map((warning) => ["warning", warning]);
    session.print(health, () =>
      columns([["status", health.status], ...services, ...certificates, ...warnings]),
    );
    if (health.status === "failing") throw new StorageError("unavailable", "the server is failing");
  },
};
