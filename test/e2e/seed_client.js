// The class of the session seed, word for word; only the base URL and the key come from outside.
const API_KEY = process.env.API_KEY;
const BASE_URL = process.env.BASE_URL;

class SessionManager {
  constructor() {
    this.apiKey = API_KEY;
    this.baseUrl = BASE_URL;
  }

  async createSession(userId) {
    const response = await fetch(`${this.baseUrl}/session/create`, {
      method: 'POST',
      headers: {
        'X-API-Key': this.apiKey,
        'Content-Type': 'application/json'
      },
      body: JSON.stringify({ user_id: userId })
    });
    
    if (!response.ok) {
      throw new Error(`Failed to create session: ${response.statusText}`);
    }
    
    return await response.json();
  }

  async wakeSession(uuid) {
    const response = await fetch(`${this.baseUrl}/session/${uuid}/wake`, {
      method: 'POST',
      headers: {
        'X-API-Key': this.apiKey
      }
    });
    
    return await response.json();
  }

  async getStatus(uuid) {
    const response = await fetch(`${this.baseUrl}/session/${uuid}/status`, {
      headers: {
        'X-API-Key': this.apiKey
      }
    });
    
    return await response.json();
  }

  async sendMessage(uuid, message) {
    const response = await fetch(`${this.baseUrl}/session/${uuid}/chat`, {
      method: 'POST',
      headers: {
        'X-API-Key': this.apiKey,
        'Content-Type': 'application/json'
      },
      body: JSON.stringify({ message })
    });
    
    return await response.json();
  }

  async deleteSession(uuid) {
    const response = await fetch(`${this.baseUrl}/session/${uuid}`, {
      method: 'DELETE',
      headers: {
        'X-API-Key': this.apiKey
      }
    });
    
    return await response.json();
  }
}

// The flow of the seed: first message, status, later messages, the end. Prints what each call gave.
async function main() {
  const sessionManager = new SessionManager();
  const seen = {};
  seen.create = await sessionManager.createSession('user@example.com');
  const { uuid } = seen.create;
  seen.wake = await sessionManager.wakeSession(uuid);
  seen.firstMessage = await sessionManager.sendMessage(uuid, 'hi');
  do {
    seen.status = await sessionManager.getStatus(uuid);
  } while (seen.status.replicas !== 1);
  seen.wakeAgain = await sessionManager.wakeSession(uuid);
  seen.nextMessage = await sessionManager.sendMessage(uuid, 'Hello AI!');
  seen.delete = await sessionManager.deleteSession(uuid);
  seen.statusAfter = await sessionManager.getStatus(uuid);
  console.log(JSON.stringify(seen));
}

main();
