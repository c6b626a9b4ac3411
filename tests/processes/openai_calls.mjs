import OpenAI from "openai";
const [url, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: "unused" });
const messages = [{ role: "user", content: "What is 2 + 3?" }];
const plain = await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 16 });
let text = "";
for await (const chunk of await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 16, stream: true }))
  text += chunk.choices[0]?.delta?.content ?? "";
console.log(JSON.stringify({ plain: plain.choices[0].message.content, streamed: text }));
