import type { Command } from "../cli/command.js";

const GRACE_MS = 10_000;

export const command: Command = {
  about: "Serve volumes to Kubernetes, Nomad and others by CSI, until SIGTERM",
  args: [
    {
      name: "NAME",
      about: "which module of type csi of the configuration",
      isOptional: true,
    },
  ],
  options: {
    endpoint: {
      type: "string",
      value: "ADDRESS",
      about: "where, as unix:///PATH.sock (or CSI_ENDPOINT)",
    },
    mode: {
      type: "string",
      value: "MODE",
      about: "what to serve: all, controller or node",
      choices: ["all", "controller", "node"],
    },
    topology: {
      type: "string",
      value: "KEY=VALUE,…",
      about: "where this node is, or the service's volumes can be reached",
    },
    hide: {
      type: "string",
      value: "NAME,…",
      about: "capabilities not to advertise, for callers that do not know them, or none",
    },
  },
  notes: [
    'Prints "ready" with its address on standard output, one line of JSON per call on standard error.',
    "What is staged and published stays so when it ends. See docs/kubernetes.md and docs/nomad.md.",
  ],
  async run(given, session) {
    const [{ openCsiModule }, configuration] = await Promise.all([
      import("../plugins/csi/serve.js"),
      session.configuration({
        "csi.mode": given.text("mode"),
        "csi.topology": given.text("topology"),
        "csi.hide": given.text("hide"),
      }),
    ]);
    const endpoint = given.text("endpoint") ?? process.env["CSI_ENDPOINT"];
    const [name] = given.args;
    const plugin = await openCsiModule(configuration, {
      ...(name !== undefined && { name }),
      ...(endpoint !== undefined && endpoint !== "" && { endpoint }),
    });
    const { name: driver, address, server, mode } = plugin;
    session.print(
      { ready: driver, address, server, mode },
      () => `ready: ${driver} (${mode}) on ${address}, server ${server}`,
    );
    await ended(session.signal);
    await plugin.close(GRACE_MS);
  },
};

function ended(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
