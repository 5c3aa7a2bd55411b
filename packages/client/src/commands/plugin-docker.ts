import type { Command } from "../cli/command.js";

const GRACE_MS = 10_000;

export const command: Command = {
  about: "Serve volumes to Docker and Podman, until SIGTERM",
  args: [
    {
      name: "NAME",
      about: "which plugins of the configuration; default is all of type docker",
      isOptional: true,
      isRepeated: true,
    },
  ],
  options: {
    listen: {
      type: "string",
      value: "ADDRESS",
      about: "where, for a single plugin; default is unix:///run/docker/plugins/NAME.sock",
    },
  },
  notes: [
    "Without modules in the configuration there is one plugin, called libstorage.",
    'Prints "ready" with each plugin\'s address on standard output, one line of JSON per call on standard error.',
    "What is mounted stays mounted when it ends. See docs/docker.md and docs/podman.md.",
  ],
  async run(given, session) {
    const [{ openDockerPlugins }, configuration] = await Promise.all([
      import("../plugins/docker/serve.js"),
      session.configuration(),
    ]);
    const listen = given.text("listen");
    const plugins = await openDockerPlugins(configuration, {
      names: given.args,
      ...(listen !== undefined && { listen }),
    });
    for (const { name, address, server } of plugins)
      session.print(
        { ready: name, address, server },
        () => `ready: ${name} on ${address}, server ${server}`,
      );
    await ended(session.signal);
    await Promise.all(plugins.map((plugin) => plugin.close(GRACE_MS)));
  },
};

function ended(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
