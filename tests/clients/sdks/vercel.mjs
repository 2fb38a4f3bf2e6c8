// The Vercel AI SDK over each API: a line of JSON for each turn, a line of JSON for its answer, as turns.py does.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.env.MODULES}/`);
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { generateText, streamText } = await load("ai");
const { createOpenAI } = await load("@ai-sdk/openai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
const { createAnthropic } = await load("@ai-sdk/anthropic");

const { ROOT, API_KEY: apiKey, MODEL } = process.env;
const baseURL = `${ROOT}/v1`;
const models = {
  chat: () => createOpenAICompatible({ name: "gateway", baseURL, apiKey })(MODEL),
  responses: () => createOpenAI({ baseURL, apiKey }).responses(MODEL),
  messages: () => createAnthropic({ baseURL, apiKey })(MODEL),
};

const [api, manner] = process.argv[2].split("_");
const model = models[api]();
const messages = [];

async function say(text) {
  messages.push({ role: "user", content: text });
  const options = { model, messages, instructions: "Be terse." };
  let failure;
  const onError = ({ error }) => (failure = error);
  const result = manner === "stream" ? streamText({ ...options, onError }) : await generateText(options);
  const answer = await Promise.resolve(result.text).catch((error) => Promise.reject(failure ?? error));
  messages.push(...(await result.response).messages);
  return answer;
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = { text: await say(JSON.parse(line)) };
  } catch (error) {
    const cause = error.lastError ?? error;
    answer = { error: [cause.name], message: cause.message, status: cause.statusCode ?? null };
  }
  console.log(JSON.stringify(answer));
}
