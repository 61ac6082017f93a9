//! Network namespaces and endpoints.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Failure, text};
use crate::hresult;
use crate::schema::is_guid;
use crate::wire::NetworkOperation;

/// The network service. Ids are in lower case.
#[derive(Debug, Default)]
pub struct Networks {
    namespaces: BTreeMap<String, Value>,
    endpoints: BTreeMap<String, Value>,
}

impl Networks {
    /// The namespaces' documents.
    pub fn namespaces(&self) -> Vec<Value> {
        self.namespaces.values().cloned().collect()
    }

    /// Makes an endpoint.
    pub fn add_endpoint(&mut self, id: &str, document: Value) {
        self.endpoints.insert(id.to_lowercase(), document);
    }

    /// Refuses a namespace that isn't there.
    ///
    /// # Errors
    /// If it isn't there.
    pub fn expect_namespace(&self, id: &str) -> Result<(), Failure> {
        if self.namespaces.contains_key(&id.to_lowercase()) {
            return Ok(());
        }
        let message = format!("there is no network namespace {id}");
        Err(Failure::new(hresult::NAMESPACE_NOT_FOUND, message))
    }

    /// Does what a function of the network service does, and answers with a document if it has
    /// one.
    ///
    /// # Errors
    /// If something isn't there, or the document isn't one.
    pub fn perform(
        &mut self,
        operation: NetworkOperation,
        id: Option<&str>,
        document: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        let id = id.unwrap_or_default().to_lowercase();
        let document = match document {
            Some(text) if !text.is_empty() => serde_json::from_str(text).map_err(|error| {
                Failure::new(hresult::NETWORK_INVALID_JSON, format!("it isn't JSON: {error}"))
            })?,
            _ => Value::Null,
        };
        let keys = |map: &BTreeMap<String, Value>| Some(json!(map.keys().collect::<Vec<_>>()));
        let answer = match operation {
            NetworkOperation::EnumerateNamespaces => keys(&self.namespaces),
            NetworkOperation::EnumerateEndpoints => keys(&self.endpoints),
            NetworkOperation::OpenEndpoint | NetworkOperation::QueryEndpoint => {
                let Some(endpoint) = self.endpoints.get(&id) else {
                    let message = format!("there is no endpoint {id}");
                    return Err(Failure::new(hresult::ENDPOINT_NOT_FOUND, message));
                };
                Some(endpoint.clone())
            }
            NetworkOperation::CreateNamespace => {
                if !is_guid(&id) {
                    let message = format!("not a GUID: {id}");
                    return Err(Failure::new(hresult::INVALID_ARGUMENT, message));
                }
                if self.namespaces.contains_key(&id) {
                    let message = format!("there is a network namespace {id} already");
                    return Err(Failure::new(hresult::ALREADY_EXISTS, message));
                }
                let number = self.namespaces.len() + 2;
                let kind = text(&document, "Type").unwrap_or("HostDefault");
                let namespace = json!({
                    "ID": id,
                    "NamespaceId": number,
                    "Type": kind,
                    "Resources": document.get("Resources").cloned().unwrap_or(json!([])),
                    "SchemaVersion": {"Major": 2, "Minor": 0},
                });
                self.namespaces.insert(id, namespace);
                None
            }
            _ => {
                self.expect_namespace(&id)?;
                match operation {
                    NetworkOperation::DeleteNamespace => {
                        self.namespaces.remove(&id);
                        None
                    }
                    NetworkOperation::ModifyNamespace => {
                        self.modify(&id, &document)?;
                        None
                    }
                    _ => self.namespaces.get(&id).cloned(),
                }
            }
        };
        Ok(answer.map(|answer| answer.to_string()))
    }

    /// Adds an endpoint to a namespace, or removes it, or notes a container.
    fn modify(&mut self, id: &str, request: &Value) -> Result<(), Failure> {
        let wrong = |what: &str| {
            Failure::new(hresult::NETWORK_INVALID_JSON, format!("{what} in {request}"))
        };
        let fields = ["ResourceType", "RequestType", "Settings"];
        let map = request.as_object().ok_or_else(|| wrong("no request"))?;
        if let Some(field) = map.keys().find(|key| !fields.contains(&key.as_str())) {
            return Err(wrong(&format!("an unknown field {field}")));
        }
        let kind = text(request, "ResourceType").ok_or_else(|| wrong("no ResourceType"))?;
        let settings = &request["Settings"];
        let name = match kind {
            "Endpoint" => text(settings, "EndpointId"),
            "Container" => text(settings, "ContainerId"),
            _ => None,
        };
        let name = name.ok_or_else(|| wrong("no such resource"))?.to_lowercase();
        if kind == "Endpoint" && !self.endpoints.contains_key(&name) {
            let message = format!("there is no endpoint {name}");
            return Err(Failure::new(hresult::ENDPOINT_NOT_FOUND, message));
        }
        let Some(resources) =
            self.namespaces.get_mut(id).and_then(|namespace| namespace["Resources"].as_array_mut())
        else {
            return Err(wrong("no resources"));
        };
        let same = |resource: &Value| {
            resource["Type"] == kind && text(&resource["Data"], "Id") == Some(name.as_str())
        };
        let place = resources.iter().position(same);
        match (text(request, "RequestType"), place) {
            (Some("Add"), None) => resources.push(json!({"Type": kind, "Data": {"Id": name}})),
            (Some("Remove"), Some(place)) => drop(resources.remove(place)),
            (Some("Add"), Some(_)) => {
                let message = format!("{kind} {name} is in the namespace already");
                return Err(Failure::new(hresult::ALREADY_EXISTS, message));
            }
            (Some("Remove"), None) => {
                let message = format!("{kind} {name} is not in the namespace");
                return Err(Failure::new(hresult::NOT_FOUND, message));
            }
            _ => return Err(wrong("no such RequestType")),
        }
        Ok(())
    }
}
